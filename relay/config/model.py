"""The configuration as frozen dataclasses, with every default and the reason for it. It must never know where the text
came from (`master/operator/cli.py`) nor read anything. Read next: `relay/config/parse.py`, the only way to make one
from text.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from types import MappingProxyType
from typing import Annotated, Literal

from millrace.relay.config.rules import (
    ABSOLUTE_OR_EMPTY,
    ANNOUNCED,
    ICE_URL,
    IP_ADDRESS,
    KEY_NAME,
    MAX_SLOTS,
    NON_EMPTY,
    ORIGIN,
    SECRET,
    VISIBLE,
    VISIBLE_SECRET,
    Rule,
    power_of_two,
    within,
)

Address = Annotated[str, IP_ADDRESS]
Port = Annotated[int, within(0, 65535)]
"""0 lets the kernel pick one port, the same for all addresses and slots: for tests and second servers."""
Seconds = Annotated[int, within(1, 3600)]
BufferBytes = Annotated[int, within(65_536, 1 << 30)]
LOOPBACK = ("127.0.0.1", "::1")
LONGEST_RUNTIME_DIRECTORY = Rule("a path of at most 80 bytes, or nothing", lambda path: len(path.encode()) <= 80)
"""The sockets in it have names of up to 13 bytes, and a socket's path ends at 108 (unix(7))."""


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """WHIP, WHEP and the page."""

    bind: Annotated[tuple[Address, ...], NON_EMPTY] = LOOPBACK
    """Loopback, so that a server without keys is nobody else's."""
    port: Port = 7880
    """LiveKit's default, which its clients expect."""
    cors_origins: tuple[Annotated[str, ORIGIN], ...] = ("*",)
    """Any page may talk to us: a token is what admits, and no cookie is ever read. Without keys `*` is this machine's
    pages only; name others, such as "https://app.example"."""


@dataclass(frozen=True, slots=True)
class MediaConfig:
    """The one UDP port."""

    bind: Annotated[tuple[Address, ...], NON_EMPTY] = LOOPBACK
    """Loopback, as for HTTP. `0.0.0.0` and `::` stand for each address that the box has at start, so that answers leave
    from the address that was asked."""
    port: Port = 7882
    """LiveKit's default for a single UDP port."""
    announced: tuple[Annotated[str, ANNOUNCED], ...] = ()
    """Addresses put into the candidates instead of the bound ones (1:1 NAT): `public`, or `public/local` to replace
    only that local one."""
    receive_buffer_bytes: BufferBytes = 4 << 20
    """Holds some 50 ms of a worker's 500 Mbit/s while it is not scheduled."""
    send_buffer_bytes: BufferBytes = 4 << 20
    """Takes one key frame for some hundreds of viewers at once."""
    steering: Literal["auto", "ebpf", "handover"] = "auto"
    """Works with and without the privilege to load a program. `ebpf` makes its failure an error, `handover` never
    tries."""
    repair_delay_ms: Annotated[int, within(0, 1_000)] = 250
    """A viewer's player on a path that loses 2 % is asked to wait so much longer than the round trip: two repairs come
    in time, and nothing stands still. 0 never asks."""


@dataclass(frozen=True, slots=True)
class AdminConfig:
    """Metrics, health and the administration interface."""

    bind: Address = "127.0.0.1"
    """Loopback: it asks for no token."""
    port: Port = 6789
    """LiveKit's default for metrics."""


@dataclass(frozen=True, slots=True)
class AuthConfig:
    """Who may come in."""

    keys: Mapping[Annotated[str, KEY_NAME], Annotated[str, SECRET]] = field(
        default_factory=lambda: MappingProxyType({}), repr=False
    )
    """API key to secret (`millrace keys` makes a pair). None: open to everyone, hence loopback only."""


@dataclass(frozen=True, slots=True)
class WorkersConfig:
    """The processes, and when the master gives one up."""

    count: Annotated[int, within(0, MAX_SLOTS)] = 0
    """0 is one per core that this process may run on. It can be changed while the server runs (HUP, TTIN, TTOU), up to
    the cores, or to what it was at the start, if that was more.
    """
    pin: bool = True
    """One core each, when there are as many; a worker's packets and its caches stay together."""
    respawn_backoff_ms: Annotated[int, within(1, 60_000)] = 100
    """The wait before the second respawn in a row of quick deaths; it doubles each time. The first has none."""
    respawn_backoff_limit_ms: Annotated[int, within(1, 600_000)] = 5_000
    """The doubling ends here: a slot is never away longer once its cause is gone."""
    quick_death_seconds: Seconds = 10
    """A worker that lived longer had booted and worked; its death is not part of a crash loop."""
    crash_limit: Annotated[int, within(1, 1000)] = 8
    """Quick deaths of a slot in a row, some 10 s of trying, after which the master stops unless another worker serves.
    After half as many crashes the slot's sessions are given up, as one of them may be the cause.
    """
    boot_seconds: Seconds = 30
    """Longest from the fork to the first beat; a cold disk takes seconds."""
    beat_seconds: Seconds = 2
    """A worker whose engine or control loop is silent for as long is aborted: ten times any garbage collection, and a
    third of what browsers bear before they call a connection lost."""
    abort_seconds: Seconds = 2
    """From SIGABRT to SIGKILL: time for a traceback, not for media to wait."""
    stop_seconds: Seconds = 5
    """For a worker to say goodbye to its clients when the server stops, until it is killed."""
    drain_seconds: Annotated[int, within(0, 86_400)] = 30
    """From SIGTERM on nobody opens a room, and rooms that are open may go on for so long."""
    balance: bool = False
    """Whether a worker that is late for some seconds gives a tenth of its sessions to one that is better off. Clients
    miss some milliseconds for it; where all workers are equally busy, or the machine is, nothing is gained.
    """
    orphan_seconds: Annotated[int, within(0, 86_400)] = 300
    """When the master was killed, its workers go on for so long without one: time for a person to start another. A
    service manager needs a second."""


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """Bounds for everything that a stranger can make grow."""

    sessions_per_worker: Annotated[int, within(1, 65_536)] = 2_000
    """Twice what a core can feed with video; past it a POST gets 503."""
    publications_per_worker: Annotated[int, within(1, 65_536)] = 1_000
    """Hardly fewer than there are track logs, of which each encoding takes one."""
    handshakes_per_worker: Annotated[int, within(1, 65_536)] = 256
    """DTLS handshakes at once: each holds some 100 kB."""
    addresses_per_session: Annotated[int, within(2, 64)] = 8
    """Proven by an ICE check; a client with more has gone through as many networks. One that moves has two."""
    streams_per_session: Annotated[int, within(1, 1024)] = 32
    """SSRCs that one client may send, repairs included: camera, screen and sound, each with three encodings, is 14."""
    sdp_bytes: Annotated[int, within(1_024, 1 << 20)] = 65_536
    """The largest offers of browsers have a third of it."""
    sdp_lines: Annotated[int, within(16, 65_536)] = 2_000
    """The longest offers of browsers have a quarter of it."""
    m_lines: Annotated[int, within(1, 256)] = 32
    """As many as the streams of one client."""
    request_seconds: Seconds = 10
    """A request that has not come in whole by then is cut."""
    late_ms: Annotated[int, within(1, 60_000)] = 250
    """A worker whose loops are so late, on average for some seconds, lets nobody in: calls suffer already."""
    spare_memory_bytes: Annotated[int, within(0, 1 << 40)] = 128 << 20
    """With less left on the machine, or in the control group, a POST gets 503: enough for what is open to go on."""
    spare_descriptors: Annotated[int, within(0, 65_536)] = 64
    """With fewer left a POST gets 503; what runs opens hardly any."""


@dataclass(frozen=True, slots=True)
class IceServer:
    """A STUN or TURN server that clients are told of in `Link` headers (RFC 9725 section 4.6)."""

    urls: Annotated[tuple[Annotated[str, ICE_URL], ...], NON_EMPTY]
    username: Annotated[str, VISIBLE] = ""
    credential: Annotated[str, VISIBLE_SECRET] = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class IceConfig:
    """What clients are told about reaching us."""

    servers: tuple[IceServer, ...] = ()
    """None: we have an address that clients reach, which is enough for ICE."""


@dataclass(frozen=True, slots=True)
class TimeoutsConfig:
    """After which silence a session ends, and with which cause."""

    ice_seconds: Seconds = 15
    """From the answer to the first valid check; browsers give up at about the same time."""
    handshake_seconds: Seconds = 10
    """From the first valid check to the end of the DTLS handshake: four of its retransmissions."""
    consent_seconds: Seconds = 30
    """From the last valid check (RFC 7675 section 5.1)."""
    media_seconds: Seconds = 10
    """A publisher that is connected and sends nothing for as long is reported as stalled."""


@dataclass(frozen=True, slots=True)
class ArenaConfig:
    """The shared memory: reserved at start, paid for only when touched."""

    logs_per_slot: Annotated[int, within(1, 65_536)] = 1_024
    """Track logs of one worker: a simulcast publication takes three."""
    log_packets: Annotated[int, power_of_two(64, 65_536)] = 1_024
    """Packets kept of each stream, 1.5 kB each: 3 s at 3 Mbit/s, more than repairs and late joiners reach back."""
    addresses: Annotated[int, power_of_two(64, 1 << 22)] = 65_536
    """Client addresses on the whole box."""
    handover_packets: Annotated[int, power_of_two(16, 65_536)] = 256
    """Datagrams that wait between two workers: 20 ms of the 100 Mbit/s that land on the wrong one."""
    messages: Annotated[int, power_of_two(16, 65_536)] = 1_024
    """Messages that wait between two workers: one for each log of a slot."""
    sessions_per_slot: Annotated[int, within(1, 65_536)] = 2_048
    """Lasting session records of one worker."""
    session_bytes: Annotated[int, power_of_two(256, 65_536)] = 32_768
    """The longest session record: a viewer of 32 streams with all that was negotiated. A longer one is not adopted."""


@dataclass(frozen=True, slots=True)
class DtlsConfig:
    """Our certificate towards clients, who know it by the fingerprint in the answer."""

    certificate: str = ""
    """PEM file; empty makes a fresh ECDSA P-256 one at each start, which is what browsers do too."""
    key: str = ""
    """PEM file of its private key."""


@dataclass(frozen=True, slots=True)
class LogConfig:
    """The log."""

    level: Literal["error", "warning", "info", "debug"] = "info"
    """One line for each participant and worker that comes or goes."""
    format: Literal["plain", "json"] = "plain"
    """For people; `json` for machines."""
    file: Annotated[str, ABSOLUTE_OR_EMPTY] = ""
    """Empty: standard error, which the service manager keeps. A rotated file is opened again, with the next line."""


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """Where the sockets between workers lie."""

    directory: Annotated[str, LONGEST_RUNTIME_DIRECTORY] = ""
    """Made with mode 0700. Empty makes one under the system's temporary directory, by the same name for the same
    listening addresses, so that a server that is started again finds the calls of one that was killed."""


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration: one field per section of the file."""

    http: HttpConfig = field(default_factory=HttpConfig)
    media: MediaConfig = field(default_factory=MediaConfig)
    admin: AdminConfig = field(default_factory=AdminConfig)
    auth: AuthConfig = field(default_factory=AuthConfig)
    workers: WorkersConfig = field(default_factory=WorkersConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    ice: IceConfig = field(default_factory=IceConfig)
    timeouts: TimeoutsConfig = field(default_factory=TimeoutsConfig)
    arena: ArenaConfig = field(default_factory=ArenaConfig)
    dtls: DtlsConfig = field(default_factory=DtlsConfig)
    log: LogConfig = field(default_factory=LogConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    @property
    def is_open(self) -> bool:
        """True when nobody needs a token."""
        return not self.auth.keys


def is_loopback(address: str) -> bool:
    """True for an address that only this machine can reach."""
    return ip_address(address).is_loopback
