"""Whose address a request comes from: the connection's, or what a trusted proxy says of its client. Owns the reading of
`X-Forwarded-For`; must never believe a proxy that the configuration does not name. Read next:
`workers/http/public.py`, which asks for each request.
"""

from collections.abc import Sequence
from ipaddress import ip_address

from aiohttp import web

from millrace.relay.access.rules import is_within

MAX_PROXIES = 16
"""Entries of the header that are looked at, from its end: more proxies stand before no server."""


def client_address(request: web.BaseRequest, trusted: tuple[str, ...]) -> str:
    """Returns the IP address of the client; empty when the connection has none."""
    return forwarded_address(request.remote or "", request.headers.getall("X-Forwarded-For", ()), trusted)


def forwarded_address(peer: str, fields: Sequence[str], trusted: tuple[str, ...]) -> str:
    """Returns the last address, from `peer` back through the fields' entries, that is no trusted proxy's. Each proxy
    adds who connected to it at the end, so what stands before that address may be the client's own invention.
    """
    address = peer
    for entry in reversed(",".join(fields).split(",")[-MAX_PROXIES:]):
        if not is_within(address, trusted):
            break
        said = _address(entry.strip())
        if said is None:
            break
        address = said
    return address


def _address(entry: str) -> str | None:
    """Returns the address of an entry, which some proxies write with a port; None when there is none."""
    if entry.startswith("["):
        entry = entry[1:].partition("]")[0]
    elif entry.count(":") == 1:
        entry = entry.partition(":")[0]
    try:
        return str(ip_address(entry))
    except ValueError:
        return None
