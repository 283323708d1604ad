"""Worker -> workers, over ZeroMQ: who is here and what is published. Each fact has one owner, the worker that holds
the participant's transport; the directory is the union of all facts by (slot, incarnation). Owns the shapes; must
never know in which order they arrive. Read `relay/membership/remote_worker.py` next, which does, and
`relay/membership/directory.py` for the union.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from millrace.relay.contract.commands import CodecName, Extension, MediaKind
from millrace.relay.contract.ids import Incarnation, ParticipantId, PublicationId, RoomName, SessionId, Slot

VERSION = 1
"""Of the message set. It rises only when an older reader would act wrongly on what is said: readers skip fields and
kinds that they do not know, and a field that is added has a default.
"""
VERSIONS_READ = range(1, VERSION + 1)


class Sending(StrEnum):
    """Whether media comes from a publisher."""

    SENDS = "sends"
    """It does, or the publisher joined a moment ago."""
    RETURNS = "returns"
    """It does again, too recently to be relied on."""
    SILENT = "silent"
    """Nothing comes, of any of its tracks."""


@dataclass(frozen=True, slots=True)
class ParticipantHere:
    """A client joined a room on the sending worker. Told again whenever `sending` changes."""

    room: RoomName
    participant: ParticipantId
    session: SessionId
    publishes: bool
    joined_at: float
    """Unix time, seconds: orders publishers of a room across workers."""
    sending: Sending = Sending.SENDS
    """Of a publisher; viewers keep the default."""


@dataclass(frozen=True, slots=True)
class ParticipantGone:
    """The session ended, or is no longer on the sending worker."""

    room: RoomName
    session: SessionId


@dataclass(frozen=True, slots=True)
class PublishedFormat:
    """A codec that a publisher may send."""

    payload_type: int
    codec: CodecName
    clock_rate: int
    format_parameters: str
    """As in PublicationHere."""


@dataclass(frozen=True, slots=True)
class PublicationHere:
    """A participant publishes a track. The fields are all that a viewer's worker needs to subscribe to it. Told once
    when it is negotiated, and again when the codec in use is known or changes.
    """

    room: RoomName
    session: SessionId
    participant: ParticipantId
    publication: PublicationId
    kind: MediaKind
    position: int
    """The m-line's place among those of its kind in the publisher's offer."""
    codec: CodecName
    """The codec in use; as long as that is not known, the first of `formats`."""
    clock_rate: int
    format_parameters: str
    """The fmtp line as negotiated with the publisher, such as `profile-level-id=42e01f;packetization-mode=1`."""
    logs: tuple[int, ...]
    extensions: tuple[Extension, ...]
    published_at: float
    """Unix time, seconds."""
    formats: tuple[PublishedFormat, ...] = ()
    """All codecs that the publisher may send, in the answer's order; empty when there is one."""
    in_use: int | None = None
    """The payload type of the codec in use; None before the first packet, and when there is one codec."""

    @property
    def is_codec_known(self) -> bool:
        """True when `codec` is the one in use."""
        return not self.formats or self.in_use is not None

    def with_codec(self, payload_type: int) -> "PublicationHere":
        """The same publication with the codec in use that the publisher numbers so; unchanged when it has none."""
        for known in self.formats:
            if known.payload_type == payload_type:
                return replace(
                    self,
                    codec=known.codec,
                    clock_rate=known.clock_rate,
                    format_parameters=known.format_parameters,
                    in_use=payload_type,
                )
        return self


@dataclass(frozen=True, slots=True)
class PublicationGone:
    """The track ended, was paused, or is no longer on the sending worker."""

    room: RoomName
    publication: PublicationId


@dataclass(frozen=True, slots=True)
class Load:
    """How busy the sending worker is; doubles as a heartbeat in which a gap of the sequence shows."""

    sessions: int
    publications: int = 0
    subscriptions: int = 0
    counters: tuple[tuple[str, int], ...] = ()
    """The control plane's own counters for the metrics page, as (name with labels, value)."""


Fact = ParticipantHere | ParticipantGone | PublicationHere | PublicationGone | Load


@dataclass(frozen=True, slots=True)
class Envelope:
    """One message on the bus. Sequences are per (slot, incarnation), from 1, without gaps."""

    slot: Slot
    incarnation: Incarnation
    sequence: int
    fact: Fact | None
    """None for one that its reader does not know: its number counts, or it would be missed again and again."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every standing fact of one worker, as of `sequence`: the answer to a snapshot request."""

    slot: Slot
    incarnation: Incarnation
    sequence: int
    facts: tuple[Fact, ...]
