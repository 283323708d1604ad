"""Python -> engine: what control wants done. Owns the shapes, whose other side is `relay/engine/core/src/command.rs`;
must never have control wait: it has named everything before, and what comes of a command is an event. Read
`relay/contract/events.py` next.

Each command is packed as `{"Name": {field: value}}`; `tests/contract` holds the golden bytes.
"""

from dataclasses import dataclass
from enum import StrEnum

from millrace.relay.contract.ids import PublicationId, RequestId, Slot, SubscriptionId, TransportId

MAX_RECORD_BYTES = 8_192
"""The longest record that `SaveRecord` may carry; the engine refuses a longer one."""


class DtlsRole(StrEnum):
    """Our role in the handshake: client when the offer said `setup:passive`."""

    CLIENT = "client"
    SERVER = "server"


class MediaKind(StrEnum):
    """What an m-line carries."""

    AUDIO = "audio"
    VIDEO = "video"


class CodecName(StrEnum):
    """The codecs that are forwarded."""

    OPUS = "opus"
    VP8 = "vp8"
    VP9 = "vp9"
    H264 = "h264"
    AV1 = "av1"


class ExtensionKind(StrEnum):
    """RTP header extensions by meaning; their URIs are in `relay/sdp/extmap.py`."""

    MID = "mid"
    RID = "rid"
    REPAIRED_RID = "repaired_rid"
    AUDIO_LEVEL = "audio_level"
    TRANSPORT_CC = "transport_cc"
    ABS_SEND_TIME = "abs_send_time"
    ABS_CAPTURE_TIME = "abs_capture_time"
    PLAYOUT_DELAY = "playout_delay"
    VIDEO_ORIENTATION = "video_orientation"
    DEPENDENCY_DESCRIPTOR = "dependency_descriptor"
    VIDEO_CONTENT_TYPE = "video_content_type"
    COLOR_SPACE = "color_space"


@dataclass(frozen=True, slots=True)
class Extension:
    """A header extension as one side numbers it (RFC 8285)."""

    id: int
    kind: ExtensionKind


@dataclass(frozen=True, slots=True)
class Codec:
    """A codec as one side numbers it."""

    name: CodecName
    payload_type: int
    rtx_payload_type: int | None
    clock_rate: int
    """Hz."""


@dataclass(frozen=True, slots=True)
class TrackCodec:
    """A codec that a publisher may send, and whether it answers generic NACK, PLI and FIR then."""

    codec: Codec
    nack: bool
    pli: bool
    fir: bool


@dataclass(frozen=True, slots=True)
class Format:
    """What a payload type of the publisher's is at a subscriber."""

    payload_type: int
    """As the publisher numbers it."""
    codec: Codec
    """As the subscriber numbers it."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """One RTP stream of a publication: the only one, or one simulcast encoding."""

    rid: str | None
    ssrc: int | None
    rtx_ssrc: int | None
    log: int
    """Index of its track log in the arena, from the slot's own range."""


@dataclass(frozen=True, slots=True)
class OpenTransport:
    """Begins to answer ICE checks for one client."""

    transport: TransportId
    local_ufrag: str
    """Two lowercase hex digits of the slot, then random ice-chars."""
    local_pwd: str
    remote_ufrag: str
    remote_pwd: str
    dtls_role: DtlsRole
    fingerprint_hash: str
    """sha-256, sha-384 or sha-512."""
    fingerprints: tuple[bytes, ...]
    """Raw digests; the peer's certificate must match one."""
    expects_media: bool


@dataclass(frozen=True, slots=True)
class RestartIce:
    """New ICE credentials for a living transport; the old pair goes on until a check under the new ones succeeds."""

    transport: TransportId
    local_ufrag: str
    local_pwd: str
    remote_ufrag: str
    remote_pwd: str


@dataclass(frozen=True, slots=True)
class CloseTransport:
    """Ends a transport with all its publications and subscriptions; answered by TransportClosed."""

    transport: TransportId


@dataclass(frozen=True, slots=True)
class Publish:
    """Takes a track from a transport into its track logs."""

    publication: PublicationId
    transport: TransportId
    kind: MediaKind
    mid: str
    codec: Codec
    """The first of `codecs`, with what the client answers then. A release that takes one codec goes on with it."""
    encodings: tuple[Encoding, ...]
    """Lowest quality first, at most three."""
    extensions: tuple[Extension, ...]
    nack: bool
    pli: bool
    fir: bool
    codecs: tuple[TrackCodec, ...]
    """All codecs that the client may send; empty when `codec` is the only one."""
    parameter_sets: bytes
    """H264's, as far as the offer has them: each unit behind its size in two bytes."""


@dataclass(frozen=True, slots=True)
class Unpublish:
    """Closes the publication's track logs."""

    publication: PublicationId


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Opens the outgoing stream of one m-line of a viewer; `Attach` feeds it."""

    subscription: SubscriptionId
    transport: TransportId
    kind: MediaKind
    mid: str
    ssrc: int
    rtx_ssrc: int | None
    cname: str
    extensions: tuple[Extension, ...]


@dataclass(frozen=True, slots=True)
class Attach:
    """Feeds a subscription from a publication's track logs, on this worker or another."""

    subscription: SubscriptionId
    publication: PublicationId
    logs: tuple[int, ...]
    codec: Codec
    """The codec in use, as the subscriber numbers it."""
    source_extensions: tuple[Extension, ...]
    """As the publisher numbers them."""
    formats: tuple[Format, ...]
    """The publisher's payload types that the subscriber can play, for when the codec changes; empty when there is one.
    """


@dataclass(frozen=True, slots=True)
class Detach:
    """Stops feeding a subscription; its stream stays open for the next Attach."""

    subscription: SubscriptionId


@dataclass(frozen=True, slots=True)
class SetWish:
    """How large a viewer shows a subscription, whatever it is attached to, now and later."""

    subscription: SubscriptionId
    height: int | None
    """Pixels. The viewer gets the smallest encoding that is as high; None is the best there is."""


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Ends an outgoing stream with a BYE."""

    subscription: SubscriptionId


@dataclass(frozen=True, slots=True)
class ReportTransport:
    """Asks for a TransportReport that carries `request` back."""

    transport: TransportId
    request: RequestId


@dataclass(frozen=True, slots=True)
class SaveRecord:
    """Saves these bytes with the transport, in place of those before. Should this worker die, its successor gets them
    back in `TransportAdopted`. Only control knows what they say."""

    transport: TransportId
    record: bytes


@dataclass(frozen=True, slots=True)
class MoveTransport:
    """Moves this transport, with all that is published and subscribed over it, to another slot's worker. `MoveDone`
    tells the outcome; until then no command about the transport can be carried out."""

    transport: TransportId
    slot: Slot


Command = (
    OpenTransport
    | RestartIce
    | CloseTransport
    | Publish
    | Unpublish
    | Subscribe
    | Attach
    | Detach
    | Unsubscribe
    | ReportTransport
    | SaveRecord
    | MoveTransport
    | SetWish
)
