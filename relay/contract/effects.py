"""What control wants done about an input: the effects that `Control.handle` returns. Owns their shapes; none must ever
hold what can wait, such as a socket or a future. Read `workers/worker.py` next, which performs them.
"""

from dataclasses import dataclass

from millrace.relay.contract.commands import Command
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
    """A fact for all workers; the bus adds nothing, control has numbered it."""

    envelope: Envelope


@dataclass(frozen=True, slots=True)
class AskSnapshot:
    """Another worker's standing facts are wanted: its sequence has a gap, or it is new to us."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class PassOn:
    """The request is another slot's: the bus carries it there and the answer back. 504 when none comes in time."""

    request: RequestId
    slot: Slot
    otherwise: Reply | None = None
    """The answer when none comes, or when another worker has passed it on to us already: all seem to be short."""


@dataclass(frozen=True, slots=True)
class DeleteElsewhere:
    """A session that is to end has just moved there: its worker is asked to end it."""

    slot: Slot
    deleted: Deleted


@dataclass(frozen=True, slots=True)
class CloseRoomEverywhere:
    """Tells every other worker to end the room's sessions."""

    room: str


@dataclass(frozen=True, slots=True)
class TellEnds:
    """These workers are to know how some sessions of ours ended."""

    slots: tuple[Slot, ...]
    ends: EndsHeard


@dataclass(frozen=True, slots=True)
class AskEnds:
    """We have just begun: another worker knows how sessions ended before."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class SessionOpened:
    """For the log: a client came."""

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
    """For the log: a session goes on in another slot, or was to and stays."""

    session: SessionId
    room: RoomName
    participant: ParticipantId
    slot: Slot
    outcome: Outcome


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
    | DeleteElsewhere
    | CloseRoomEverywhere
    | TellEnds
    | AskEnds
    | SessionOpened
    | SessionEnded
    | SessionsAdopted
    | SessionMoved
    | EngineRefused
)
