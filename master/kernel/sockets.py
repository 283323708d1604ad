"""Every socket of the server: one per slot, address and purpose. The master binds each once and holds it open for its
whole life, so that the order within a SO_REUSEPORT group never changes. It must never read a byte. Read next:
`master/kernel/eligible.py`, which says which of them the kernel may pick.
"""

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import islice, zip_longest
from typing import Any, Literal

from millrace.master.kernel.addresses import own_addresses
from millrace.master.kernel.reuseport import spread
from millrace.relay.config.model import Config
from millrace.relay.contract.takeover import TCP, Manifest, SocketGroup

MOST_ADDRESSES = 64
"""Of media: `MAX_SOCKETS` of the engine (`relay/engine/shell/src/lib.rs`)."""
_BACKLOG = 1024
"""Connections that wait while a slot is being respawned; the kernel caps it at net.core.somaxconn."""
_PORT_TRIES = 32
"""Attempts to find a port that the kernel picks on one address and that is free on all others; then the start fails."""
_SEND_BUFFER_FORCE, _RECEIVE_BUFFER_FORCE = 32, 33
"""SO_SNDBUFFORCE and SO_RCVBUFFORCE, asm-generic/socket.h: with CAP_NET_ADMIN they exceed the sysctl's limit."""
_PASSAGE_BYTES = 4 << 20
"""Of connections that lie between two workers: some 5,000, when all of a worker's wait for its successor. Without
CAP_NET_ADMIN the kernel grants room for some 250; the clients of further ones connect again.
"""
_ATTACH_FILTER = 26
"""SO_ATTACH_FILTER, asm-generic/socket.h."""
_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


class BindRefused(Exception):
    """A socket could not be bound; the text names the key, the address and the port."""


@dataclass(frozen=True, slots=True)
class Group:
    """The sockets of one address and port, in slot order."""

    address: str
    port: int
    members: tuple[socket.socket, ...]


@dataclass(frozen=True, slots=True)
class Sockets:
    """All groups of the server, by purpose."""

    http: tuple[Group, ...]
    admin: tuple[Group, ...]
    media: tuple[Group, ...]
    """One per bound address. A wildcard is replaced by each address of the box, so that an answer leaves from the
    address that was asked.
    """
    tcp: tuple[Group, ...]
    """Of clients that come over TCP: a single listener for each address of `media`, or none."""
    warnings: tuple[str, ...]
    """Lines for the log, such as buffers that the kernel did not grant."""

    def named(self) -> Iterator[tuple[SocketGroup, Group]]:
        """Yields all groups with their names in the manifest."""
        by_section = (("http", self.http), ("admin", self.admin), ("media", self.media), (TCP, self.tcp))
        for section, groups in by_section:
            for group in groups:
                yield SocketGroup(section, group.address, group.port), group

    def by_slot(self, section: Literal["http", "admin"], slots: int) -> tuple[tuple[int, ...], ...]:
        """Returns the listeners of each slot, by their descriptors."""
        groups = self.http if section == "http" else self.admin
        return tuple(tuple(group.members[slot].fileno() for group in groups) for slot in range(slots))


def bind_all(config: Config, slots: int, activated: Sequence[socket.socket] = (), opened: int | None = None) -> Sockets:
    """Binds all sockets that the service manager has not bound already. The kernel gives connections to the first
    `opened` listeners of each group only; to all when None. Raises BindRefused, and leaves nothing bound then.
    """
    named = {(each.type, *each.getsockname()[:2]): each for each in activated}
    binder = _Binder(slots, opened or slots, [], [], named)
    try:
        http = binder.bind("http", socket.SOCK_STREAM, config.http.bind, config.http.port)
        admin = binder.bind("admin", socket.SOCK_STREAM, (config.admin.bind,), config.admin.port)
        addresses, left_out = media_addresses(config.media.bind)
        if left_out:
            binder.warnings.append(too_many(addresses, left_out))
        media = binder.bind("media", socket.SOCK_DGRAM, addresses, config.media.port)
        port = config.media.tcp_port or media[0].port
        tcp = binder.bind_tcp(config.media.tcp, [group.address for group in media], port)
        if all(ip_address(group.address).is_loopback for group in media):
            media += binder.bind_for_firefox(media[0].port)
        for group in media:
            _set_buffers(group, config, binder.warnings)
        for kind, *address in binder.close_unused():
            binder.warnings.append(f"the service manager's socket {address} ({kind.name}) is on none of our addresses")
    except BaseException:
        for each in binder.opened:
            each.close()
        raise
    return Sockets(http, admin, media, tcp, tuple(dict.fromkeys(binder.warnings)))


def bind_more(
    config: Config, slots: int, addresses: Sequence[str], port: int
) -> tuple[tuple[Group, ...], tuple[str, ...]]:
    """Binds media sockets on addresses that the box has got since the start; returns them and lines for the log. Raises
    BindRefused, and leaves nothing bound then.
    """
    binder = _Binder(slots, slots, [], [], {})
    try:
        groups = binder.bind("media", socket.SOCK_DGRAM, addresses, port)
        for group in groups:
            _set_buffers(group, config, binder.warnings)
    except BaseException:
        for each in binder.opened:
            each.close()
        raise
    return groups, tuple(dict.fromkeys(binder.warnings))


def bind_more_tcp(addresses: Sequence[str], port: int) -> tuple[tuple[Group, ...], tuple[str, ...]]:
    """Binds listeners for clients without UDP on addresses that the box has got since the start, if the port can be had
    there; returns them and lines for the log.
    """
    binder = _Binder(1, 1, [], [], {})
    return binder.bind_tcp("auto", addresses, port), tuple(binder.warnings)


def are_shared(activated: Sequence[socket.socket]) -> bool:
    """True when other sockets can share the ports of the service manager's."""
    return all(each.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) for each in activated)


def inherit_all(config: Config, manifest: Manifest, descriptors: Mapping[str, int]) -> Sockets:
    """Returns the sockets of another master, as it bound them. `descriptors` are by the manifest's names."""
    groups: dict[str, list[Group]] = {"http": [], "admin": [], "media": [], TCP: []}
    for number, named in enumerate(manifest.groups):
        if named.section not in groups:
            # A later release's. They stay open, for its return.
            continue
        members = tuple(socket.socket(fileno=descriptors[name]) for name in named.names(number, manifest.slots))
        groups[named.section].append(Group(named.address, named.port, members))
    warnings: list[str] = []
    for group in groups["media"]:
        _set_buffers(group, config, warnings)
    http, admin, media, tcp = (tuple(groups[purpose]) for purpose in ("http", "admin", "media", TCP))
    return Sockets(http, admin, media, tcp, tuple(dict.fromkeys(warnings)))


def tcp_passage() -> tuple[int, int]:
    """Makes the pair of sockets by which one slot is passed TCP connections: inbox and door. What lies in it outlives
    the worker. Returns descriptors.
    """
    inbox, door = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        door.setsockopt(socket.SOL_SOCKET, _SEND_BUFFER_FORCE, _PASSAGE_BYTES)
    except PermissionError:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PASSAGE_BYTES)
    return inbox.detach(), door.detach()


def media_addresses(bind: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the addresses with each wildcard replaced by those that it stands for, none twice; then those that are
    left out since the engine takes MOST_ADDRESSES. Of wildcards' the likeliest stay, by turns. Raises BindRefused.
    """
    named = [each for each in bind if not ip_address(each).is_unspecified]
    if len(named) > MOST_ADDRESSES:
        raise BindRefused(f"media.bind: found {len(named)} addresses, expected {MOST_ADDRESSES} at most")
    groups = [own_addresses(ip_address(each).version) if each not in named else [each] for each in bind]
    # In the order of the key; each wildcard's are the likeliest first.
    expanded = tuple(dict.fromkeys(address for group in groups for address in group))
    by_turns = (address for turn in zip_longest(*groups) for address in turn if address is not None)
    kept = set(islice(dict.fromkeys([*named, *by_turns]), MOST_ADDRESSES))
    return tuple(each for each in expanded if each in kept), tuple(each for each in expanded if each not in kept)


def too_many(kept: Sequence[str], left_out: Sequence[str]) -> str:
    """Returns a line about addresses that are left out."""
    some = ", ".join(left_out[:8]) + (" ..." if len(left_out) > 8 else "")
    return (
        f"media.bind: this machine has {len(kept) + len(left_out)} addresses, of which {len(kept)} are used; name "
        f"those that clients reach in place of a wildcard. Left out: {some}"
    )


@dataclass(slots=True)
class _Binder:
    slots: int
    open_slots: int
    opened: list[socket.socket]
    warnings: list[str]
    activated: dict[tuple[Any, ...], socket.socket]
    """By kind, address and port; those that no group has taken yet."""

    def bind(self, section: str, kind: socket.SocketKind, addresses: Sequence[str], port: int) -> tuple[Group, ...]:
        addresses = self._with_ipv6_only_if_there_is_any(section, addresses)
        port = self._free_port(section, kind, addresses, port)
        groups = tuple(self._group(section, kind, address, port) for address in addresses)
        for group in groups if kind is socket.SOCK_STREAM else ():
            group.members[0].listen(_BACKLOG)
            if self.open_slots < self.slots:
                # Before the others listen, as a connection would wait at a slot without a worker.
                spread(group.members, self.open_slots)
            for member in group.members[1:]:
                member.listen(_BACKLOG)
        return groups

    def bind_tcp(self, mode: Literal["auto", "on", "off"], addresses: Sequence[str], port: int) -> tuple[Group, ...]:
        """Binds a listener on each address, which all workers share: whichever accepts a connection passes it to the
        one that has the session. With `auto`, a port that cannot be had leaves clients without TCP.
        """
        if mode == "off":
            return ()
        before = len(self.opened)
        try:
            return tuple(Group(address, port, (self._listener(address, port),)) for address in addresses)
        except BindRefused as error:
            if mode == "on":
                raise
            for each in self.opened[before:]:
                each.close()
            del self.opened[before:]
            self.warnings.append(f"media.tcp: clients in networks without UDP will not connect: {error}")
            return ()

    def _listener(self, address: str, port: int) -> socket.socket:
        if activated := self.activated.pop((socket.SOCK_STREAM, address, port), None):
            self.opened.append(activated)
            activated.setblocking(False)
            return activated
        try:
            listener = self._open(socket.SOCK_STREAM, address)
            self.opened.append(listener)
            listener.setblocking(False)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, port))
            listener.listen(_BACKLOG)
        except OSError as error:
            raise _refused("media", address, port, error, "tcp_port") from error
        return listener

    def bind_for_firefox(self, port: int) -> tuple[Group, ...]:
        """Binds one address of the box, for clients on the same machine only.

        Firefox pairs no other address with a loopback address, so it cannot reach a server that is on loopback alone.
        The kernel drops here what did not arrive over the loopback device.
        """
        outward = [address for address in own_addresses(4) if not ip_address(address).is_loopback]
        try:
            return tuple(
                self._group("media", socket.SOCK_DGRAM, address, port, is_local=True) for address in outward[:1]
            )
        except (BindRefused, PermissionError) as error:
            self.warnings.append(f"media.bind: Firefox on this machine will not connect: {error}")
            return ()

    def _with_ipv6_only_if_there_is_any(self, section: str, addresses: Sequence[str]) -> Sequence[str]:
        """Returns the addresses without `::1` and `::` on a box without IPv6, so that it serves the others."""
        general = {address for address in addresses if address in ("::1", "::")}
        if not general or len(general) == len(addresses):
            return addresses
        try:
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
                probe.bind(("::1", 0))
        except OSError as error:
            if error.errno not in _NO_IPV6:
                raise
            self.warnings.append(f"{section}.bind: this machine has no IPv6; {', '.join(sorted(general))} left out")
            return [address for address in addresses if address not in general]
        return addresses

    def _free_port(self, section: str, kind: socket.SocketKind, addresses: Sequence[str], port: int) -> int:
        """Returns the port, or one that the kernel picks when it is 0, if it is free on all addresses. Raises
        BindRefused.

        Without this check, SO_REUSEPORT would let a second server of the same user share the port without an error, and
        each would get half of the clients.
        """
        for _ in range(1 if port else _PORT_TRIES):
            picked = port
            try:
                for address in addresses:
                    if (kind, address, picked) in self.activated:
                        continue
                    with self._open(kind, address) as probe:
                        if kind is socket.SOCK_STREAM:
                            # Old connections in TIME-WAIT are no obstacle then; a listener still is.
                            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                        probe.bind((address, picked))
                        picked = probe.getsockname()[1]
            except OSError as error:
                if port or error.errno != errno.EADDRINUSE:
                    raise _refused(section, address, picked, error) from error
            else:
                return picked
        raise BindRefused(f"{section}.port: no port is free on all of {', '.join(addresses)}")

    def _group(
        self, section: str, kind: socket.SocketKind, address: str, port: int, *, is_local: bool = False
    ) -> Group:
        members = []
        if activated := self.activated.pop((kind, address, port), None):
            members.append(self._take(section, activated))
        for _ in range(self.slots - len(members)):
            try:
                member = self._open(kind, address)
                self.opened.append(member)
                member.setblocking(False)
                if is_local:
                    # Before the bind, after which it would receive from the network for a moment.
                    hear_this_machine_only(member)
                member.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                if kind is socket.SOCK_STREAM:
                    member.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                member.bind((address, port))
            except OSError as error:
                raise _refused(section, address, port, error) from error
            members.append(member)
        return Group(address, port, tuple(members))

    def _take(self, section: str, activated: socket.socket) -> socket.socket:
        """Returns a socket of the service manager's, for the first slot. Raises BindRefused."""
        self.opened.append(activated)
        activated.setblocking(False)
        if self.slots > 1 and not activated.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT):
            address, port = activated.getsockname()[:2]
            raise BindRefused(
                f"{section}.port: the service manager's socket on {address} port {port} is not shared, which "
                f"{self.slots} workers need; its unit lacks ReusePort=yes"
            )
        return activated

    def close_unused(self) -> list[tuple[Any, ...]]:
        """Closes the service manager's sockets that no group has taken, and returns their addresses."""
        for each in self.activated.values():
            each.close()
        return list(self.activated)

    @staticmethod
    def _open(kind: socket.SocketKind, address: str) -> socket.socket:
        if ip_address(address).version == 4:
            return socket.socket(socket.AF_INET, kind)
        opened = socket.socket(socket.AF_INET6, kind)
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        return opened


def hear_this_machine_only(member: socket.socket) -> None:
    """Has the kernel drop what did not arrive over the loopback device, by a classic BPF filter (socket(7)).

    SO_BINDTODEVICE does not do it, as the kernel counts local traffic to an outward address to that address's device.
    """
    load_word, jump_if_equal, give_back = 0x20, 0x15, 0x06
    interface_index = 0xFFFFF000 + 8  # SKF_AD_OFF + SKF_AD_IFINDEX, linux/filter.h
    steps = (
        (load_word, 0, 0, interface_index),
        (jump_if_equal, 0, 1, socket.if_nametoindex("lo")),
        (give_back, 0, 0, 0xFFFFFFFF),
        (give_back, 0, 0, 0),
    )
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    filter_program = struct.pack("@HP", len(steps), ctypes.addressof(program))
    member.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, filter_program)


def _refused(section: str, address: str, port: int, error: OSError, port_key: str = "port") -> BindRefused:
    reasons = {
        errno.EADDRINUSE: "is taken by another program; is Millrace running already?",
        errno.EADDRNOTAVAIL: "cannot be had: this machine does not have the address",
        errno.EAFNOSUPPORT: "cannot be had: this machine has no IPv6",
        errno.EACCES: "is not for this user; ports below 1024 need CAP_NET_BIND_SERVICE",
    }
    key = f"{section}.bind" if error.errno in _NO_IPV6 else f"{section}.{port_key}"
    reason = reasons.get(error.errno or 0, f"cannot be had: {os.strerror(error.errno or 0)}")
    return BindRefused(f"{key}: {address} port {port} {reason}")


def _set_buffers(group: Group, config: Config, warnings: list[str]) -> None:
    wanted = {
        "receive_buffer_bytes": (config.media.receive_buffer_bytes, _RECEIVE_BUFFER_FORCE, socket.SO_RCVBUF),
        "send_buffer_bytes": (config.media.send_buffer_bytes, _SEND_BUFFER_FORCE, socket.SO_SNDBUF),
    }
    for key, (size, forced, polite) in wanted.items():
        for member in group.members:
            try:
                member.setsockopt(socket.SOL_SOCKET, forced, size)
            except PermissionError:
                member.setsockopt(socket.SOL_SOCKET, polite, size)
            # The kernel reports twice the size, as it adds its own bookkeeping (socket(7)).
            warnings += buffer_warning(key, size, member.getsockopt(socket.SOL_SOCKET, polite) // 2)


def buffer_warning(key: str, wanted: int, granted: int) -> list[str]:
    """Returns a line for the log when the kernel grants a smaller buffer than was asked for, else nothing."""
    if granted >= wanted:
        return []
    sysctl = "net.core.rmem_max" if key.startswith("receive") else "net.core.wmem_max"
    return [f"media.{key}: the kernel gives {granted} of {wanted} bytes; sysctl -w {sysctl}={wanted} allows them"]
