"""Which addresses the box has, and which of them clients are told. Asks the kernel only, and must never bind an address
or send to one. Read next: `master/kernel/sockets.py`, which binds.
"""

import socket
import struct
from collections.abc import Iterator, Sequence
from ipaddress import ip_address

from millrace.relay.contract.boot import CandidateAddress

# rtnetlink(7). An answer is a chain of messages: header (16), ifaddrmsg (8), attributes (length, type, value, padding).
_GET_ADDRESSES, _DONE, _ERROR = 22, 3, 2
_REQUEST_DUMP = 0x301
_ADDRESS, _LOCAL = 1, 2
_UNUSABLE = 0x01 | 0x08 | 0x20 | 0x40
"""Flags of addresses that are not there, or not for long: temporary (RFC 8981), failed duplicate detection, deprecated,
tentative.
"""
_SCOPE_GLOBAL = 0
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


def own_addresses(version: int) -> list[str]:
    """Returns the box's lasting addresses of an IP version that other machines can reach; loopback when it has none."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        request = struct.pack("=BBBBI", _FAMILIES[version], 0, 0, 0, 0)
        netlink.sendall(struct.pack("=IHHII", 16 + len(request), _GET_ADDRESSES, _REQUEST_DUMP, 1, 0) + request)
        found: list[str] = []
        is_done = False
        while not is_done:
            more, is_done = parse_answer(netlink.recv(1 << 16))
            found += more
    loopback = "127.0.0.1" if version == 4 else "::1"
    return found or [loopback]


def parse_answer(datagram: bytes) -> tuple[list[str], bool]:
    """Returns the addresses in one datagram of the kernel's answer, and whether it was the last. Raises OSError."""
    found: list[str] = []
    for kind, body in _chain(datagram, "=IH", 16):
        if kind == _DONE:
            return found, True
        if kind == _ERROR:
            raise OSError(-struct.unpack_from("=i", body)[0], "the kernel does not list its addresses")
        _, _, flags, scope, _ = struct.unpack_from("=BBBBI", body)
        if flags & _UNUSABLE or scope != _SCOPE_GLOBAL:
            continue
        attributes = dict(_chain(body[8:], "=HH", 4))
        # On a point-to-point link, IFA_ADDRESS is the other side's address and IFA_LOCAL ours.
        packed = attributes.get(_LOCAL, attributes.get(_ADDRESS))
        if packed is not None:
            found.append(str(ip_address(packed)))
    return found, False


def _chain(buffer: bytes, header: str, header_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Yields type and body of netlink's messages or attributes: both have length, type, body, padded to four bytes."""
    while len(buffer) >= header_bytes:
        length, kind = struct.unpack_from(header, buffer)
        yield kind, buffer[header_bytes:length]
        buffer = buffer[max(header_bytes, (length + 3) & ~3) :]


def candidates(bound: Sequence[tuple[str, int]], announced: Sequence[str]) -> tuple[CandidateAddress, ...]:
    """Returns what clients are told: the bound addresses, unless the configuration announces others in their place.
    `public/local` replaces one bound address, `public` all others of its IP version.
    """
    pairs = {ip_address(local): public for public, _, local in (each.partition("/") for each in announced) if local}
    plain = [each for each in announced if "/" not in each]
    told: dict[tuple[str, int], None] = {}
    for address, port in bound:
        parsed = ip_address(address)
        instead = [public for public in plain if ip_address(public).version == parsed.version]
        for public in [pairs[parsed]] if parsed in pairs else instead or [address]:
            told[public, port] = None
    return tuple(CandidateAddress(address, port) for address, port in told)
