"""What the master hands to a worker in the child after the fork: values, and descriptors as plain numbers, inherited
and already bound. Owns the shape; its reader must never close another slot's descriptor, which serves the next master
when this one is dead. Read next: `workers/main.py`, which is given a Boot.
"""

from dataclasses import dataclass
from pathlib import Path
from ssl import SSLContext
from typing import Literal, Protocol

from millrace.relay.config.model import Config
from millrace.relay.contract.ids import Incarnation, Slot


@dataclass(frozen=True, slots=True)
class MediaSocket:
    """This slot's UDP socket on one bound address."""

    fd: int
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class CandidateAddress:
    """Where clients reach the media port, most wanted first: bound, enumerated or announced."""

    address: str
    port: int
    bound: str
    """Our own address behind it; the same, unless another is announced in its place."""
    protocol: Literal["udp", "tcp"] = "udp"


@dataclass(frozen=True, slots=True)
class TcpMedia:
    """What a worker needs for clients that come over TCP."""

    listeners: tuple[int, ...]
    """One per bound address, shared by all workers: whichever accepts a connection passes it to the session's."""
    inbox: int
    """The end of a Unix socket at which this slot is passed connections."""
    doors: tuple[int, ...]
    """The other end of each slot's."""


class PublicTls(Protocol):
    """What the public listeners encrypt with. Made before the fork, so that a ticket of one worker opens a session on
    another.
    """

    @property
    def context(self) -> SSLContext:
        """For the listeners; it stays the same when the certificate is renewed."""
        ...

    def renew(self) -> bool:
        """Loads the files when they have changed, for connections that come from now on; returns whether. Raises
        OSError or ValueError, once for each change, when they cannot be used: then the old certificate stays.
        """
        ...

    def ends_at(self) -> float:
        """Returns until when the certificate holds: Unix time, seconds."""
        ...


class RuntimeLock(Protocol):
    """This process's lock in the runtime directory, in which the next master finds it."""

    def look(self, may_make: bool) -> bool:
        """Takes the lock anew when the file was replaced; with `may_make`, makes the file when it is gone. Returns True
        when it is another file.
        """


@dataclass(frozen=True, slots=True)
class Boot:
    """One worker's share of what the master has made."""

    config: Config
    slot: Slot
    incarnation: Incarnation
    slots: int
    """How many workers there may be; slots are 0 to slots - 1."""
    adopts: bool
    """True when the worker adopts the sessions that the slot's last worker left; else it drops them."""
    http_sockets: tuple[tuple[int, ...], ...]
    """Each slot's TCP listeners, listening. Those of another slot are served while it is down."""
    public_tls: PublicTls | None
    """For `http_sockets`; None when they speak HTTP."""
    admin_sockets: tuple[tuple[int, ...], ...]
    """Each slot's listeners of the administration address."""
    media_sockets: tuple[MediaSocket, ...]
    """In the order of `media.bind`, each wildcard as the addresses that it stands for, and last the one for Firefox, if
    there is one (`master/kernel/sockets.py`): the place is the socket number in paths and in the address table.
    """
    candidates: tuple[CandidateAddress, ...]
    master: int
    """The master's process id. While another process is our parent, there is no master."""
    inherited: tuple[int, ...]
    """All that another master needs to go on, in the order of `relay/contract/takeover.py`. Never closed."""
    takeover_socket: int | None
    """Where that master asks for it once ours is gone; None when no other master could find us."""
    arena: int
    """The memfd of the shared memory, its header written."""
    doorbells: tuple[int, ...]
    """One eventfd per slot, this one's own included; non-blocking."""
    flow_map: int | None
    """The steering program's map; None when the kernel does not steer and workers hand over."""
    certificate_pem: str
    private_key_pem: str
    fingerprint: str
    """As in the SDP: `sha-256 AB:CD:...`."""
    runtime_directory: Path
    """Mode 0700; for `worker-{slot}.pub` and `worker-{slot}.rpc`."""
    runtime_lock: RuntimeLock
    """To be looked after each second: the directory may be swept."""
    started_at: float
    """Unix time of the server's start, seconds."""
    forked_at: float
    """When the master was about to fork this worker: CLOCK_MONOTONIC, seconds."""
    tcp: TcpMedia | None = None
    """None when clients reach us over UDP alone."""
