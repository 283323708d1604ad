"""Which addresses the box has, and which of them clients are told. Asks the kernel only, and must never bind an address
or send to one. Read next: `master/kernel/sockets.py`, which binds.
"""

import re
import socket
import struct
from collections.abc import Iterator, Sequence
from ipaddress import IPv6Network, ip_address

from millrace.relay.contract.boot import CandidateAddress

# rtnetlink(7). An answer is a chain of messages: header (16), ifaddrmsg (8), attributes (length, type, value, padding).
_GET_ADDRESSES, _DONE, _ERROR = 22, 3, 2
_REQUEST_DUMP = 0x301
_ADDRESS, _LOCAL = 1, 2
_UNUSABLE = {4: 0x08 | 0x20 | 0x40, 6: 0x01 | 0x08 | 0x20 | 0x40}
"""Flags of addresses that are not there, or not for long: failed duplicate detection, deprecated, tentative; of IPv6
also temporary ones (RFC 8981). For IPv4 that bit says that the address is a second one of its subnet, which lasts.
"""
_SCOPE_GLOBAL = 0
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_VERSIONS = {socket.AF_INET: 4, socket.AF_INET6: 6}
_FAR = {4: "192.0.2.1", 6: "2001:db8::1"}
"""Addresses that nobody has (RFC 5737, RFC 3849): the way there is the default route."""
_UNIQUE_LOCAL = IPv6Network("fc00::/7")
_INSIDE = re.compile(r"(br-|cali|cni|docker|flannel|lxc|lxd|podman|tailscale|veth|virbr|vmnet|wg|zt)")
"""How interfaces to containers, guests and tunnels are called: few clients come from there."""


def own_addresses(version: int) -> list[str]:
    """Returns the box's lasting addresses of an IP version that other machines can reach, the likeliest for clients
    first; loopback when it has none.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        request = struct.pack("=BBBBI", _FAMILIES[version], 0, 0, 0, 0)
        netlink.sendall(struct.pack("=IHHII", 16 + len(request), _GET_ADDRESSES, _REQUEST_DUMP, 1, 0) + request)
        found: list[tuple[str, int]] = []
        is_done = False
        while not is_done:
            more, is_done = parse_answer(netlink.recv(1 << 16))
            found += more
    outward = default_source(version)
    ranked = sorted(found, key=lambda each: rank(each[0], _interface(each[1]), outward))
    loopback = "127.0.0.1" if version == 4 else "::1"
    return [address for address, _ in ranked] or [loopback]


def rank(address: str, interface: str, outward: str | None) -> int:
    """Returns the place of an address among those of its IP version: first the one from which this machine itself
    reaches the Internet, last those of containers, guests and tunnels.
    """
    if address == outward:
        return 0
    if _INSIDE.match(interface):
        return 3
    # A site's own addresses (RFC 4193) are reached from nowhere else.
    return 2 if ip_address(address) in _UNIQUE_LOCAL else 1


def default_source(version: int) -> str | None:
    """Returns the address from which the kernel would send to the Internet; None without a way there. Sends nothing."""
    with socket.socket(_FAMILIES[version], socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((_FAR[version], 9))
            return str(probe.getsockname()[0])
        except OSError:
            return None


def _interface(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        # It has gone since.
        return ""


def parse_answer(datagram: bytes) -> tuple[list[tuple[str, int]], bool]:
    """Returns the addresses in one datagram of the kernel's answer, each with its interface's index, and whether the
    datagram was the last. Raises OSError.
    """
    found: list[tuple[str, int]] = []
    for kind, body in _chain(datagram, "=IH", 16):
        if kind == _DONE:
            return found, True
        if kind == _ERROR:
            raise OSError(-struct.unpack_from("=i", body)[0], "the kernel does not list its addresses")
        family, _, flags, scope, interface = struct.unpack_from("=BBBBI", body)
        if flags & _UNUSABLE.get(_VERSIONS.get(family, 0), 0) or scope != _SCOPE_GLOBAL:
            continue
        attributes = dict(_chain(body[8:], "=HH", 4))
        # On a point-to-point link, IFA_ADDRESS is the other side's address and IFA_LOCAL ours.
        packed = attributes.get(_LOCAL, attributes.get(_ADDRESS))
        if packed is not None:
            found.append((str(ip_address(packed)), interface))
    return found, False


def _chain(buffer: bytes, header: str, header_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Yields type and body of netlink's messages or attributes: both have length, type, body, padded to four bytes."""
    while len(buffer) >= header_bytes:
        length, kind = struct.unpack_from(header, buffer)
        yield kind, buffer[header_bytes:length]
        buffer = buffer[max(header_bytes, (length + 3) & ~3) :]


def candidates(bound: Sequence[tuple[str, int]], announced: Sequence[str]) -> tuple[CandidateAddress, ...]:
    """Returns what clients are told, in the order of `bound`: those addresses, unless the configuration announces
    others in their place. `public/local` replaces one bound address, `public` all others of its IP version.
    """
    pairs = {ip_address(local): public for public, _, local in (each.partition("/") for each in announced) if local}
    plain = [each for each in announced if "/" not in each]
    told: dict[tuple[str, int], str] = {}
    for address, port in bound:
        parsed = ip_address(address)
        instead = [public for public in plain if ip_address(public).version == parsed.version]
        for public in [pairs[parsed]] if parsed in pairs else instead or [address]:
            told.setdefault((public, port), address)
    return tuple(CandidateAddress(*public, bound=address) for public, address in told.items())


def told_in_vain(bound: Sequence[str], config_bind: Sequence[str], announced: Sequence[str]) -> Iterator[str]:
    """Yields lines for the log about addresses that no client will reach, as far as this machine knows."""
    if any(ip_address(each).is_unspecified for each in config_bind) and all(
        ip_address(each).is_loopback for each in bound
    ):
        yield "media.bind: this machine has no address but loopback, so no other machine can be served"
    has = {ip_address(each) for each in bound}
    for entry in announced:
        _, _, local = entry.partition("/")
        if local and ip_address(local) not in has:
            yield f"media.announced: nobody is told {entry}, as this machine does not have {local}"


def likeliest_first(bound: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Returns bound addresses in the order in which clients are to try them: IPv4 first, as a client without IPv6 may
    try the first one only; within an IP version as `own_addresses` has them.
    """
    order = {ip_address(each): place for version in (4, 6) for place, each in enumerate(own_addresses(version))}
    unknown = len(order)

    def place(each: tuple[str, int]) -> tuple[bool, int, int]:
        address = ip_address(each[0])
        return address.is_loopback, address.version, order.get(address, unknown)

    return sorted(bound, key=place)
