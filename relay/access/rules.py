"""Whom the configuration lets in without a token: rooms that anybody may watch, networks that may publish. Owns how a
name meets a pattern and an address a network; must never know tokens. Read `relay/access/decision.py` next, which asks.
"""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network


def is_named(room: str, patterns: Iterable[str]) -> bool:
    """True when one of the patterns names the room. A pattern's `*` stands for any characters, or none."""
    return any(_fits(room, pattern) for pattern in patterns)


def is_within(address: str, networks: tuple[str, ...]) -> bool:
    """True when the IP address is in one of the networks. A text that is no address is in none."""
    try:
        found = ip_address(address)
    except ValueError:
        return False
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        # As a socket for both families shows it.
        found = found.ipv4_mapped
    return any(found in network for network in _parsed(networks))


def _fits(room: str, pattern: str) -> bool:
    before, star, after = pattern.partition("*")
    if not star:
        return room == pattern
    return len(room) >= len(before) + len(after) and room.startswith(before) and room.endswith(after)


@lru_cache(maxsize=4)
def _parsed(networks: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(map(ip_network, networks))
