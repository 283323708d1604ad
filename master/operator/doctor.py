"""`millrace doctor`: looks for problems of a machine before clients meet them. Each check says what it found and what
to do. It must never change anything. Read next: `master/operator/doctor_call.py`, the call through a running server.
"""

import ctypes
import errno
import math
import os
import resource
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path

from millrace.master.kernel.addresses import own_addresses
from millrace.master.kernel.sockets import BindRefused, media_addresses, too_many
from millrace.master.kernel.steering import steer
from millrace.master.start.certificate import CertificateRefused
from millrace.master.start.https import https_for
from millrace.master.start.prepare import workers_wanted
from millrace.relay.config.model import Config, is_loopback
from millrace.workers.control_groups import cpu_quota

_UDP, _UDP_SEGMENT, _UDP_GRO = 17, 103, 104
_CAP_NET_ADMIN = 12
_GOOD_CLOCKS = {"tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page", "xen"}
"""Clock sources that are read without a system call. The engine reads the time with every batch."""
_UNSYNCHRONIZED = 0x40
"""STA_UNSYNC, adjtimex(2)."""
RENEWAL_DAYS = 14
"""Whoever renews certificates has done it by then."""
SPARE_DESCRIPTORS = 2048
"""Beside the sockets, for connections and files."""


class Verdict(StrEnum):
    """How bad a finding is."""

    GOOD = "ok"
    POOR = "warn"
    """The server works, but not as well as it could, or the setting may be a mistake."""
    BAD = "FAIL"
    """The server will not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check."""

    verdict: Verdict
    what: str
    detail: str


def examine(config: Config) -> Iterator[Finding]:
    """Yields the findings of all checks that need no running server."""
    yield from _ports(config)
    yield from addresses(config)
    yield from announced(config, set(own_addresses(4)) | set(own_addresses(6)))
    yield from https(config, time.time())
    yield from _buffers(config)
    yield _descriptors(config)
    yield _cores(config)
    yield _steering()
    yield from _offloads()
    yield Finding(Verdict.GOOD, "OpenSSL", openssl())
    yield from _clocks()


def openssl() -> str:
    """Returns the version that HTTPS runs on; DTLS is computed by the one that the engine was linked with, mostly the
    same.
    """
    return ssl.OPENSSL_VERSION


def _ports(config: Config) -> Iterator[Finding]:
    wanted = [("http", socket.SOCK_STREAM, address, config.http.port) for address in config.http.bind]
    wanted += [("media", socket.SOCK_DGRAM, address, config.media.port) for address in config.media.bind]
    wanted += [("admin", socket.SOCK_STREAM, config.admin.bind, config.admin.port)]
    for section, kind, address, port in wanted:
        yield port_finding(section, kind, address, port)


def port_finding(section: str, kind: socket.SocketKind, address: str, port: int) -> Finding:
    """Checks whether a port is free. One that a running Millrace has is taken, too."""
    what = f"{section}: {'UDP' if kind is socket.SOCK_DGRAM else 'TCP'} port {port} at {address}"
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, kind) as probe:
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if kind is socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return Finding(Verdict.POOR, what, "taken; by Millrace itself, if it runs, else by another program")
        return Finding(Verdict.BAD, what, os.strerror(error.errno or 0))
    return Finding(Verdict.GOOD, what, "free")


def addresses(config: Config) -> Iterator[Finding]:
    """Checks whether media can be bound to all that the key names."""
    try:
        kept, left_out = media_addresses(config.media.bind)
    except BindRefused as refusal:
        yield Finding(Verdict.BAD, "addresses", str(refusal))
        return
    if left_out:
        yield Finding(Verdict.POOR, "addresses", too_many(kept, left_out))


def announced(config: Config, own: set[str]) -> Iterator[Finding]:
    """Checks whether clients are told addresses that they can reach."""
    what = "media.announced"
    for entry in config.media.announced:
        public, _, local = entry.partition("/")
        if local and ip_address(local) not in {*map(ip_address, own), *map(ip_address, config.media.bind)}:
            yield Finding(Verdict.BAD, what, f"{local} is no address of this machine; it has {', '.join(sorted(own))}")
        elif not ip_address(public).is_global:
            yield Finding(Verdict.POOR, what, f"{public} cannot be reached from the Internet")
        else:
            yield Finding(Verdict.GOOD, what, f"{public} is public")
    if config.media.announced:
        return
    if all(is_loopback(address) for address in config.media.bind):
        yield Finding(Verdict.POOR, what, "media is bound to loopback: this server is for this machine alone")
        return
    bound = own if any(ip_address(each).is_unspecified for each in config.media.bind) else set(config.media.bind)
    if any(ip_address(each).is_global for each in bound):
        yield Finding(Verdict.GOOD, what, "empty, and a bound address is public")
    else:
        told = ", ".join(sorted(bound))
        yield Finding(Verdict.POOR, what, f"empty, and clients are told {told}: behind NAT, name the public address")


def https(config: Config, now: float) -> Iterator[Finding]:
    """Checks whether browsers will take the certificate for some time."""
    what = "http.certificate"
    try:
        tls = https_for(config.http, None)
    except CertificateRefused as refusal:
        yield Finding(Verdict.BAD, what, str(refusal))
        return
    if tls is None:
        return
    days = (tls.ends_at() - now) / 86_400
    until = f"holds until {time.strftime('%Y-%m-%d', time.gmtime(tls.ends_at()))}"
    if days < 0:
        yield Finding(Verdict.BAD, what, f"{until}, which is over: browsers refuse the page")
    else:
        yield Finding(Verdict.GOOD if days > RENEWAL_DAYS else Verdict.POOR, what, until)


def _buffers(config: Config) -> Iterator[Finding]:
    sizes = {"rmem_max": config.media.receive_buffer_bytes, "wmem_max": config.media.send_buffer_bytes}
    for name, wanted in sizes.items():
        path = Path("/proc/sys/net/core") / name
        if not path.exists():
            continue
        granted = int(path.read_text())
        if granted >= wanted or _has_capability(_CAP_NET_ADMIN):
            yield Finding(Verdict.GOOD, f"net.core.{name}", f"{wanted:,} bytes can be had")
        else:
            advice = f"{granted:,} bytes; sysctl -w net.core.{name}={wanted}"
            yield Finding(Verdict.POOR, f"net.core.{name}", advice)


def _has_capability(number: int) -> bool:
    status = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    return bool(int(status["CapEff"], 16) >> number & 1)


def _descriptors(config: Config) -> Finding:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    slots = max(config.workers.count, len(os.sched_getaffinity(0)))
    wanted = slots * (len(config.http.bind) + len(config.media.bind) + 2) + SPARE_DESCRIPTORS
    if most == resource.RLIM_INFINITY or most >= wanted:
        return Finding(Verdict.GOOD, "open files", f"{most:,} allowed")
    return Finding(Verdict.BAD, "open files", f"{most:,} allowed, {wanted:,} wanted; see LimitNOFILE or `ulimit -Hn`")


def _cores(config: Config) -> Finding:
    cores, workers = len(os.sched_getaffinity(0)), config.workers.count
    if workers > cores:
        return Finding(Verdict.POOR, "workers", f"{workers} on {cores} cores: they are not pinned and take turns")
    quota = cpu_quota()
    allowed = "" if quota is None else f"; control groups allow the time of {quota:.2f} cores"
    if quota is not None and workers > max(1, math.ceil(quota)):
        return Finding(Verdict.POOR, "workers", f"{workers} on {cores} cores{allowed}: they take turns")
    return Finding(Verdict.GOOD, "workers", f"{workers_wanted(config)} on {cores} cores{allowed}")


def _steering() -> Finding:
    members = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    try:
        for member in members:
            member.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            member.bind(members[0].getsockname() if member is not members[0] else ("127.0.0.1", 0))
        steer([members], 16).close()
    except OSError as error:
        why = error.strerror or str(error)
        return Finding(
            Verdict.POOR, "steering by eBPF", f"{why}; needs CAP_BPF and CAP_NET_ADMIN, else workers hand over"
        )
    finally:
        for member in members:
            member.close()
    return Finding(Verdict.GOOD, "steering by eBPF", "the kernel takes the program")


def _offloads() -> Iterator[Finding]:
    for name, option in (("UDP GSO", _UDP_SEGMENT), ("UDP GRO", _UDP_GRO)):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.setsockopt(_UDP, option, 1)
            except OSError as error:
                yield Finding(Verdict.POOR, name, f"{os.strerror(error.errno or 0)}: each datagram costs a system call")
            else:
                yield Finding(Verdict.GOOD, name, "the kernel has it")


def _clocks() -> Iterator[Finding]:
    source = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
    if source.exists():
        name = source.read_text().strip()
        is_good = name in _GOOD_CLOCKS
        detail = name if is_good else f"{name}: slow to read; `tsc` on bare metal, the hypervisor's own in a guest"
        yield Finding(Verdict.GOOD if is_good else Verdict.POOR, "clock source", detail)
    timex = ctypes.create_string_buffer(256)
    if ctypes.CDLL(None).adjtimex(timex) < 0:
        return
    # struct timex on 64 bits: modes (4 + 4), offset, freq, maxerror, esterror (8 each), status.
    if struct.unpack_from("=i", timex, 40)[0] & _UNSYNCHRONIZED:
        yield Finding(Verdict.POOR, "time of day", "not synchronized: tokens expire by it, and logs are read by it")
    else:
        yield Finding(Verdict.GOOD, "time of day", "synchronized")
