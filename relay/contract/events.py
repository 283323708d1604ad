"""Engine -> Python: what happened that control must know. Owns the shapes, whose other side is
`relay/engine/core/src/event.rs`; must never know what follows from an event. Read `relay/engine_events.py` next, which
does.
"""

from dataclasses import dataclass
from enum import StrEnum

from millrace.relay.contract.ids import PublicationId, RequestId, Slot, SubscriptionId, TransportId


class Cause(StrEnum):
    """Why a transport ended or does not work. The value is the metric's label and what `GET /sessions/{id}` says."""

    CLOSED = "closed"
    CLOSED_BY_PEER = "closed_by_peer"
    NO_STUN = "no_stun"
    BAD_INTEGRITY = "bad_integrity"
    NO_CLIENT_HELLO = "no_client_hello"
    HANDSHAKE_TIMEOUT = "handshake_timeout"
    DTLS_ALERT = "dtls_alert"
    FINGERPRINT_MISMATCH = "fingerprint_mismatch"
    NO_SRTP_PROFILE = "no_srtp_profile"
    NO_SRTP = "no_srtp"
    CONSENT_LOST = "consent_lost"


@dataclass(frozen=True, slots=True)
class TransportConnected:
    """ICE and DTLS are done; media may flow."""

    transport: TransportId
    srtp_profile: str
    dtls_version: str
    handshake_us: int


@dataclass(frozen=True, slots=True)
class TransportClosed:
    """The transport is gone from the engine, with its publications and subscriptions."""

    transport: TransportId
    cause: Cause


@dataclass(frozen=True, slots=True)
class TransportStalled:
    """No media flows, and why. The transport lives on, as its client may recover."""

    transport: TransportId
    cause: Cause


@dataclass(frozen=True, slots=True)
class PublicationStarted:
    """The first packet is in the track log, or the first after PublicationEnded."""

    publication: PublicationId


@dataclass(frozen=True, slots=True)
class PublicationEnded:
    """Every stream of the publication said BYE. It may send again."""

    publication: PublicationId


@dataclass(frozen=True, slots=True)
class PublisherSilent:
    """No publication of the transport has brought a packet for a while."""

    transport: TransportId


@dataclass(frozen=True, slots=True)
class PublisherHeard:
    """A packet of one of the transport's publications came: the first since the opening, since the adoption or since
    `PublisherSilent`.
    """

    transport: TransportId


@dataclass(frozen=True, slots=True)
class CodecInUse:
    """Which of its codecs a publication sends: with the first packet, and when that changes. Never of one that has a
    single codec.
    """

    publication: PublicationId
    payload_type: int


@dataclass(frozen=True, slots=True)
class PublicationReport:
    """What one publication has received since it was opened."""

    publication: PublicationId
    packets: int
    bytes: int
    packets_lost: int
    packets_recovered: int
    jitter_ms: float
    nacks_sent: int
    key_frame_requests_sent: int
    key_frames: int


@dataclass(frozen=True, slots=True)
class SubscriptionReport:
    """What one subscription has sent since it was opened."""

    subscription: SubscriptionId
    publication: PublicationId | None
    packets: int
    bytes: int
    retransmitted: int
    nacks_received: int
    fraction_lost: float
    """0..1, from the viewer's last receiver report."""
    key_frame_requests_received: int


@dataclass(frozen=True, slots=True)
class TransportReport:
    """A transport's statistics, and those of its streams, when the engine handled `ReportTransport`."""

    transport: TransportId
    request: RequestId
    state: str
    remote_address: str | None
    srtp_profile: str | None
    packets_received: int
    bytes_received: int
    packets_sent: int
    bytes_sent: int
    drops: tuple[tuple[str, int], ...]
    round_trip_ms: float | None
    publications: tuple[PublicationReport, ...]
    subscriptions: tuple[SubscriptionReport, ...]
    remote_protocol: str | None = None
    """`udp` or `tcp`, of the path that media goes to."""


@dataclass(frozen=True, slots=True)
class CommandFailed:
    """A command that the engine could not carry out."""

    command: str
    id: int
    reason: str


@dataclass(frozen=True, slots=True)
class TransportAdopted:
    """A transport of this slot's dead worker, or of another slot that moved it here, lives on here."""

    transport: TransportId
    record: bytes
    """As `SaveRecord` saved it last. A transport of which control never saved a record is not adopted."""
    publications: tuple[PublicationId, ...]
    subscriptions: tuple[SubscriptionId, ...]
    """Attached as they were."""
    connected: bool
    """Else its handshake had not begun."""


@dataclass(frozen=True, slots=True)
class AdoptionDone:
    """Every transport that could be adopted has been named. Sent once, at every start, before all other events."""

    adopted: int
    lost: int
    """Unfinished handshakes, transports of which control saved no record, and records that could not be used."""


class Outcome(StrEnum):
    """Whether a transport moved, and if not, why."""

    MOVED = "moved"
    HANDSHAKING = "handshaking"
    """Its handshake is under way, which no other worker can finish."""
    NO_RECORD = "no_record"
    """It has no session record from which another worker could adopt it."""
    BUSY = "busy"
    """The ring to the other worker, or the address table, is full just now."""
    REFUSED = "refused"
    """The other slot has no room for it, or cannot read its record."""
    UNANSWERED = "unanswered"
    """The other slot did not answer in time."""


@dataclass(frozen=True, slots=True)
class MoveDone:
    """The outcome of `MoveTransport`. Unless it moved, the transport goes on here as before."""

    transport: TransportId
    slot: Slot
    outcome: Outcome


Event = (
    TransportConnected
    | TransportClosed
    | TransportStalled
    | PublicationStarted
    | PublicationEnded
    | CodecInUse
    | TransportReport
    | CommandFailed
    | TransportAdopted
    | AdoptionDone
    | MoveDone
    | PublisherSilent
    | PublisherHeard
)
