"""The configuration as frozen dataclasses, with every default and the reason for it. It must never know where the text
came from (`master/operator/cli.py`) nor read anything. Read next: `relay/config/parse.py`, the only way to make one
from text.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from types import MappingProxyType
from typing import Annotated, Literal
from urllib.parse import urlsplit

from millrace.relay.config.rules import (
    ABSOLUTE_OR_EMPTY,
    ANNOUNCED,
    FRAME_ANCESTOR,
    HOOK_URL,
    ICE_URL,
    IP_ADDRESS,
    KEY_NAME,
    MAX_SLOTS,
    NETWORK,
    NON_EMPTY,
    ORIGIN,
    PUBLIC_PATH,
    ROOM_PATTERN,
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
    """Loopback, as a server without keys must be out of other machines' reach."""
    port: Port = 7880
    """LiveKit's default, which its clients expect."""
    cors_origins: tuple[Annotated[str, ORIGIN], ...] = ("*",)
    """Which web pages may use the server. `*` is any page, as a token admits clients and no cookie is ever read.
    Without keys `*` stands for this machine's pages only; name others, such as "https://app.example".
    """
    frame_ancestors: tuple[Annotated[str, FRAME_ANCESTOR], ...] = ()
    """Which other sites may show the player `/watch/{room}` in a frame, such as "https://site.example"; `*` is any.
    None, as a page in somebody else's frame can be clicked unknowingly. All other pages can never be framed.
    """
    public_path: Annotated[str, PUBLIC_PATH] = ""
    """The path under which a proxy publishes the server, such as "/media". Answers then name their session under it.
    Requests are taken with it and without it, as proxies strip it or do not.
    """
    certificate: str = ""
    """A PEM file, the chain included: with it the port speaks HTTPS, without it HTTP. Read anew when it changes, as
    certbot and others renew it, without a connection lost.
    """
    key: str = ""
    """The PEM file of its private key, without a password."""
    trusted_proxies: tuple[Annotated[str, NETWORK], ...] = ()
    """Addresses and networks of proxies whose `X-Forwarded-For` says a client's address, such as "127.0.0.1" for one on
    this machine. None, as anybody else could write it.
    """


@dataclass(frozen=True, slots=True)
class MediaConfig:
    """The one UDP port."""

    bind: Annotated[tuple[Address, ...], NON_EMPTY] = LOOPBACK
    """Loopback, as for HTTP. `0.0.0.0` and `::` stand for each address that the box has at start, so that an answer
    leaves from the address that was asked.
    """
    port: Port = 7882
    """LiveKit's default for a single UDP port."""
    announced: tuple[Annotated[str, ANNOUNCED], ...] = ()
    """Addresses that clients are told instead of the bound ones (1:1 NAT): `public`, or `public/local` to replace only
    that local address.
    """
    receive_buffer_bytes: BufferBytes = 4 << 20
    """Of each UDP socket. The default holds what a worker gets in some 50 ms at 500 Mbit/s while it is not scheduled;
    the kernel drops what does not fit.
    """
    send_buffer_bytes: BufferBytes = 4 << 20
    """Of each UDP socket. The default takes one key frame for some hundreds of viewers at once."""
    steering: Literal["auto", "ebpf", "handover"] = "auto"
    """How datagrams find their worker. `auto` has the kernel steer if it takes the BPF program, else workers hand over.
    `ebpf` makes a refusal an error, `handover` never asks the kernel.
    """
    tcp: Literal["auto", "on", "off"] = "auto"
    """Whether clients whose network lets no UDP out can connect over TCP (RFC 6544). `auto` does without when the port
    is taken, and says so; `on` makes that an error.
    """
    tcp_port: Port = 0
    """For those clients. 0 is the number of `media.port`. Networks that let nothing else out let 443 out, unless HTTPS
    is there.
    """
    repair_delay_ms: Annotated[int, within(0, 1_000)] = 250
    """On a path that loses 2 %, a viewer's player is asked to play this much later than the round trip: then two
    repairs arrive in time, and no picture freezes. 0 never asks.
    """


@dataclass(frozen=True, slots=True)
class AdminConfig:
    """Metrics, health and the administration interface."""

    bind: Address = "127.0.0.1"
    """Loopback, as this interface asks for no token."""
    port: Port = 6789
    """LiveKit's default for metrics."""


@dataclass(frozen=True, slots=True)
class AuthConfig:
    """Who may come in."""

    keys: Mapping[Annotated[str, KEY_NAME], Annotated[str, SECRET]] = field(
        default_factory=lambda: MappingProxyType({}), repr=False
    )
    """API keys and their secrets (`millrace keys` makes a pair). Without any, and without a hook, no token is asked
    for, and only loopback can be bound.
    """
    public_rooms: tuple[Annotated[str, ROOM_PATTERN], ...] = ()
    """Rooms that anybody may watch without a token: names, or patterns with one `*`, such as "public-*". None, as a
    room is nobody else's until its owner says so.
    """
    publish_from: tuple[Annotated[str, NETWORK], ...] = ()
    """Addresses and networks whose clients may publish without a token, such as "192.168.7.0/24". None, as whoever can
    send from there could then. Pages of other sites cannot, unless `http.cors_origins` names them.
    """
    hook: Annotated[str, HOOK_URL] = ""
    """Your own server's URL, such as "https://app.example/millrace": it is asked about whoever shows no token of these
    keys and whom no rule above admits. Empty refuses those.
    """
    hook_secret: Annotated[str, VISIBLE_SECRET] = field(default="", repr=False)
    """Sent to the hook as `Authorization: Bearer`, so that it knows who asks. Empty sends none."""
    hook_timeout_ms: Annotated[int, within(50, 3_000)] = 1_000
    """For the hook's whole answer; then the client gets 504. A person waits for that long without complaint."""

    @property
    def is_open(self) -> bool:
        """True when nobody needs a token."""
        return not (self.keys or self.hook)


@dataclass(frozen=True, slots=True)
class WorkersConfig:
    """The processes, and when the master gives one up."""

    count: Annotated[int, within(0, MAX_SLOTS)] = 0
    """How many worker processes; 0 is one per core that the master may run on, and that control groups leave time for,
    rounded up. SIGHUP, SIGTTIN and SIGTTOU change it while the server runs, up to the number of cores, or of workers at
    the start if that was more.
    """
    pin: bool = True
    """Pins each worker to a core of its own, when there are enough, so that its packets stay in that core's caches."""
    respawn_backoff_ms: Annotated[int, within(1, 60_000)] = 100
    """The wait before the second respawn after quick deaths in a row; it doubles each time. The first respawn is
    immediate.
    """
    respawn_backoff_limit_ms: Annotated[int, within(1, 600_000)] = 5_000
    """The longest wait, so that a slot is soon back once the cause of its deaths is gone."""
    quick_death_seconds: Seconds = 10
    """A worker that lives longer has booted and served, so its death is no part of a crash loop."""
    crash_limit: Annotated[int, within(1, 1000)] = 8
    """Quick deaths of a slot in a row, some 10 s of retries, after which the server stops, unless another worker
    serves. After half as many crashes the slot's sessions are dropped, as one of them may be the cause.
    """
    boot_seconds: Seconds = 30
    """From the fork of a worker to its first beat; then it is aborted. A cold disk takes seconds."""
    beat_seconds: Seconds = 2
    """A worker whose engine or control loop is silent this long is aborted. That is ten times any garbage collection,
    and a third of what browsers wait before they call a connection lost.
    """
    abort_seconds: Seconds = 2
    """From SIGABRT to SIGKILL for a worker that hangs: time for a traceback. Its clients get no media meanwhile."""
    stop_seconds: Seconds = 5
    """For a worker to say goodbye to its clients when the server stops; then it is killed."""
    drain_seconds: Annotated[int, within(0, 86_400)] = 30
    """After SIGTERM no new room is opened, and open rooms may go on this long; then their sessions are closed."""
    balance: bool = False
    """Whether a worker that is late for some seconds moves a tenth of its sessions to one with less to do. Clients miss
    some milliseconds of media. Where all workers are equally busy, or the machine is, nothing is gained.
    """
    orphan_seconds: Annotated[int, within(0, 86_400)] = 300
    """How long workers go on after their master was killed: time for a person to start another. A service manager needs
    a second.
    """


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """Bounds for everything that a stranger can make grow."""

    sessions_per_worker: Annotated[int, within(1, 65_536)] = 2_000
    """Twice what a core can feed with video. At the limit another worker takes the POST, or it gets 503."""
    publications_per_worker: Annotated[int, within(1, 65_536)] = 1_000
    """Just under `arena.logs_per_slot`, as each encoding takes one track log."""
    handshakes_per_worker: Annotated[int, within(1, 65_536)] = 256
    """DTLS handshakes at once, each of some 100 kB."""
    addresses_per_session: Annotated[int, within(2, 64)] = 8
    """Addresses that one client has proven by ICE checks. A client that changes networks has two at a time."""
    streams_per_session: Annotated[int, within(1, 1024)] = 32
    """SSRCs that one client may send, repairs included. Camera and screen with three encodings each, and sound, are 14.
    """
    sdp_bytes: Annotated[int, within(1_024, 1 << 20)] = 65_536
    """Longest offer or fragment, in bytes. Three times the largest offer seen."""
    sdp_lines: Annotated[int, within(16, 65_536)] = 2_000
    """Longest offer, in lines. Four times the longest offer seen."""
    m_lines: Annotated[int, within(1, 256)] = 32
    """Media sections of one offer: as many as `streams_per_session`."""
    request_seconds: Seconds = 10
    """For a request to come in whole; then it is cut."""
    idle_seconds: Seconds = 620
    """For a connection between two requests: longer than proxies keep theirs (nginx 60, Caddy 120, Google 600), as a
    request that crosses our closing is lost. Where there are too many, those that have been idle longest end first.
    """
    late_ms: Annotated[int, within(1, 60_000)] = 250
    """A worker whose loops run this late, on average over some seconds, answers POST with 503: its sessions suffer
    already.
    """
    spare_memory_bytes: Annotated[int, within(0, 1 << 40)] = 128 << 20
    """With less memory left on the machine, or in the control group, a POST gets 503. The rest is for the open
    sessions.
    """
    spare_descriptors: Annotated[int, within(0, 65_536)] = 64
    """With fewer descriptors left, a POST gets 503. Open sessions need hardly any more."""


@dataclass(frozen=True, slots=True)
class IceServer:
    """A STUN or TURN server that clients are told of in `Link` headers (RFC 9725 section 4.6)."""

    urls: Annotated[tuple[Annotated[str, ICE_URL], ...], NON_EMPTY]
    username: Annotated[str, VISIBLE] = ""
    credential: Annotated[str, VISIBLE_SECRET] = field(default="", repr=False)
    secret: Annotated[str, VISIBLE_SECRET] = field(default="", repr=False)
    """coturn's `static-auth-secret`: then each client gets a user name and a password of its own, which end after
    `ice.credential_seconds`.
    """


@dataclass(frozen=True, slots=True)
class IceConfig:
    """Which STUN and TURN servers clients are told."""

    servers: tuple[IceServer, ...] = ()
    """None, as the server has an address that clients reach, which is enough for ICE. Clients in networks that let no
    UDP out need a TURN server.
    """
    credential_seconds: Annotated[int, within(60, 604_800)] = 86_400
    """How long credentials made of a server's `secret` last: longer than calls, as clients get no others meanwhile."""


@dataclass(frozen=True, slots=True)
class TimeoutsConfig:
    """After which silence a session ends, and with which cause."""

    ice_seconds: Seconds = 15
    """From the answer to the first valid check; browsers give up at about the same time."""
    handshake_seconds: Seconds = 10
    """From the first valid check to the end of the DTLS handshake: four of its retransmissions."""
    consent_seconds: Seconds = 30
    """From the last answer to a request of ours, which goes out every 4 to 6 s (RFC 7675 section 5.1)."""
    media_seconds: Seconds = 10
    """From the keys to the first packet, else the publisher is reported as stalled. Who falls silent later shows within
    2 s.
    """


@dataclass(frozen=True, slots=True)
class ArenaConfig:
    """The shared memory. It is reserved at start, and each page takes memory only when it is touched."""

    logs_per_slot: Annotated[int, within(1, 65_536)] = 1_024
    """Track logs of one worker, each for one encoding: a simulcast publication takes three."""
    log_packets: Annotated[int, power_of_two(64, 65_536)] = 1_024
    """Packets that a track log holds, 1.5 kB each. The default is 3 s at 3 Mbit/s, more than repairs and late joiners
    reach back.
    """
    addresses: Annotated[int, power_of_two(64, 1 << 22)] = 65_536
    """Room for client addresses, of the whole box."""
    handover_packets: Annotated[int, power_of_two(16, 65_536)] = 256
    """Datagrams that wait between two workers, then they are dropped. The default is 20 ms when 100 Mbit/s land on the
    wrong worker.
    """
    messages: Annotated[int, power_of_two(16, 65_536)] = 1_024
    """Messages that wait between two workers: room for one of each log of a slot."""
    sessions_per_slot: Annotated[int, within(1, 65_536)] = 2_048
    """Session records of one worker, each for one session that outlives it. Just above `limits.sessions_per_worker`."""
    session_bytes: Annotated[int, power_of_two(256, 65_536)] = 32_768
    """The longest session record, in bytes: a viewer of 32 streams with all that was negotiated. A session with a
    longer one is not adopted.
    """


@dataclass(frozen=True, slots=True)
class DtlsConfig:
    """The server's certificate, which clients know by the fingerprint in the answer."""

    certificate: str = ""
    """A PEM file. Empty makes a fresh ECDSA P-256 certificate at each start, as browsers do."""
    key: str = ""
    """The PEM file of its private key."""


@dataclass(frozen=True, slots=True)
class LogConfig:
    """The log."""

    level: Literal["error", "warning", "info", "debug"] = "info"
    """`info` writes a line for each session and worker that comes or goes."""
    format: Literal["plain", "json"] = "plain"
    """`plain` is for people, `json` for machines."""
    file: Annotated[str, ABSOLUTE_OR_EMPTY] = ""
    """Empty is standard error, which goes to the service manager's journal. After a rotation the next line opens the
    file anew.
    """


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """Where the sockets between workers lie."""

    directory: Annotated[str, LONGEST_RUNTIME_DIRECTORY] = ""
    """Made with mode 0700, and again when it was swept. Empty makes one in `$RUNTIME_DIRECTORY`, in /run for root, else
    in the temporary directory, named after the listening addresses, so that the next server finds the sessions of one
    that was killed.
    """


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
        return self.auth.is_open


def is_loopback(address: str) -> bool:
    """True for an address that only this machine can reach."""
    return ip_address(address).is_loopback


def is_read_on_the_way(url: str) -> bool:
    """True for an HTTP URL that leads to another machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return parts.scheme == "http" and host != "localhost" and not (IP_ADDRESS.accepts(host) and is_loopback(host))
