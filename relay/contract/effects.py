"""What control wants done about an input: the effects that `Control.handle` returns. Owns their shapes; none must ever
hold what can wait, such as a socket or a future. Read `workers/worker.py` next, which performs them.
"""

from dataclasses import dataclass

from millrace.relay.contract.access import HookQuestion
from millrace.relay.contract.commands import CodecName, Command, MediaKind
from millrace.relay.contract.events import Outcome
from millrace.relay.contract.facts import Envelope
from millrace.relay.contract.ids import ParticipantId, RequestId, RoomName, SessionId, Slot
from millrace.relay.contract.inputs import Deleted, EndsHeard
from millrace.relay.contract.protocol import Protocol


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one HTTP request."""

    request: RequestId
    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Submit:
    """Commands for the engine, in order."""

    commands: tuple[Command, ...]


@dataclass(frozen=True, slots=True)
class Announce:
    """A fact for all workers, already numbered by control; the bus adds nothing."""

    envelope: Envelope


@dataclass(frozen=True, slots=True)
class AskSnapshot:
    """Asks another worker for its standing facts: its sequence has a gap, or the worker is new to us."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class PassOn:
    """Has the bus carry the request to another slot and the answer back; 504 when no answer comes in time."""

    request: RequestId
    slot: Slot
    otherwise: Reply | None = None
    """The answer in place of 504. Also given at once when another worker passed the request on to us already: then all
    workers seem to be short of something.
    """


@dataclass(frozen=True, slots=True)
class AskHook:
    """Asks the operator's hook; HookAnswered follows, within `auth.hook_timeout_ms`."""

    question: HookQuestion


@dataclass(frozen=True, slots=True)
class DeleteElsewhere:
    """Asks the worker in that slot to end a session which has just moved there."""

    slot: Slot
    deleted: Deleted


@dataclass(frozen=True, slots=True)
class CloseRoomEverywhere:
    """Tells every other worker to end the room's sessions."""

    room: str


@dataclass(frozen=True, slots=True)
class TellEnds:
    """Tells these workers how some sessions of ours ended."""

    slots: tuple[Slot, ...]
    ends: EndsHeard


@dataclass(frozen=True, slots=True)
class AskEnds:
    """Asks another worker how sessions ended before we started."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class SessionOpened:
    """For the log: a session was opened."""

    session: SessionId
    protocol: Protocol
    room: RoomName
    participant: ParticipantId


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """For the log: a session is over. Its transport is closed and its facts are withdrawn."""

    session: SessionId
    protocol: Protocol
    room: RoomName
    participant: ParticipantId
    cause: str
    """An `events.Cause` or one of control's own, such as `replaced` or `room_deleted`."""


@dataclass(frozen=True, slots=True)
class SessionsAdopted:
    """For the log: what became of the sessions of a worker that died in this slot."""

    adopted: int
    lost: int


@dataclass(frozen=True, slots=True)
class SessionMoved:
    """For the log: the outcome of a session's move to another slot."""

    session: SessionId
    room: RoomName
    participant: ParticipantId
    slot: Slot
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class StreamUnplayable:
    """For the log: a viewer cannot play the codec that is sent, so nothing feeds one of its streams."""

    session: SessionId
    room: RoomName
    participant: ParticipantId
    kind: MediaKind
    codec: CodecName


@dataclass(frozen=True, slots=True)
class EngineRefused:
    """For the log: the engine could not carry out a command, which is a defect of ours."""

    command: str
    session: SessionId
    reason: str


Effect = (
    Reply
    | Submit
    | Announce
    | AskSnapshot
    | PassOn
    | AskHook
    | DeleteElsewhere
    | CloseRoomEverywhere
    | TellEnds
    | AskEnds
    | SessionOpened
    | SessionEnded
    | SessionsAdopted
    | SessionMoved
    | StreamUnplayable
    | EngineRefused
)
