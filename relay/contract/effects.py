"""What goes into `Control.handle` and what comes out of it. Inputs are facts about the outside; effects are what
control wants done. Owns their shapes; none must ever hold what can wait, such as a socket or a future. Read
`relay/control.py` next, which takes inputs, and `workers/worker.py`, which performs effects.
"""

from dataclasses import dataclass
from enum import StrEnum

from millrace.relay.contract.commands import Command
from millrace.relay.contract.events import Event, Outcome
from millrace.relay.contract.facts import Envelope, Snapshot
from millrace.relay.contract.ids import Incarnation, ParticipantId, RequestId, RoomName, SessionId, Slot
from millrace.relay.load.pressure import Measured


class Protocol(StrEnum):
    """Which HTTP protocol an offer came by."""

    WHIP = "whip"
    WHEP = "whep"


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What is remembered of a session that is over."""

    session: SessionId
    protocol: Protocol
    room: RoomName
    participant: ParticipantId
    opened_at: float
    ended_at: float
    """Unix time, likewise `opened_at`."""
    cause: str
    """An `events.Cause` or one of control's own, such as `replaced` or `room_deleted`."""
    until: float
    """When it is forgotten, by the machine's steady clock."""


# --- inputs


@dataclass(frozen=True, slots=True)
class Offered:
    """POST /whip/{room} or /whep/{room}."""

    request: RequestId
    protocol: Protocol
    room: str
    token: str | None
    sdp: str
    participant: str | None
    """WHEP: which participant to watch; None for the room's first publisher."""


@dataclass(frozen=True, slots=True)
class Patched:
    """PATCH of a session: trickled candidates (204) or an ICE restart (200)."""

    request: RequestId
    session: str
    token: str | None
    if_match: str | None
    fragment: str
    """application/trickle-ice-sdpfrag, RFC 8840."""


@dataclass(frozen=True, slots=True)
class Deleted:
    """DELETE of a session by its client (or by the admin, without a token check)."""

    request: RequestId
    session: str
    token: str | None
    by_admin: bool = False


@dataclass(frozen=True, slots=True)
class RoomsAsked:
    """GET /rooms, or one room. Without `room`, all."""

    request: RequestId
    room: str | None = None


@dataclass(frozen=True, slots=True)
class RoomsListed:
    """The same for the public page, without sessions: who knows one's id can end it when no tokens are asked for."""

    request: RequestId
    token: str | None
    """Whose bearer sees the room that it names."""


@dataclass(frozen=True, slots=True)
class RoomDeleted:
    """Admin: every session of a room ends, on every worker."""

    request: RequestId
    room: str


@dataclass(frozen=True, slots=True)
class SessionAsked:
    """Admin: GET /sessions/{id}, with the transport's statistics or the cause of its failure."""

    request: RequestId
    session: str


@dataclass(frozen=True, slots=True)
class MoveAsked:
    """Admin: a session is to go on in another slot."""

    request: RequestId
    session: str
    slot: int


@dataclass(frozen=True, slots=True)
class SlotsClosed:
    """These slots are to have no session: nobody is let in or moved there. If ours is among them, `GiveAll` follows."""

    slots: frozenset[Slot]


@dataclass(frozen=True, slots=True)
class GiveAll:
    """Some of our sessions go to other slots, evenly. To be said again and again until `Control.is_empty`."""


@dataclass(frozen=True, slots=True)
class EngineSaid:
    """An event of the engine."""

    event: Event


@dataclass(frozen=True, slots=True)
class FactHeard:
    """A fact of another worker."""

    envelope: Envelope


@dataclass(frozen=True, slots=True)
class SnapshotHeard:
    """The answer to AskSnapshot. A worker that is gone gives none; then SlotChanged follows."""

    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class SlotChanged:
    """The master's slot table changed: this slot now lives its `incarnation`, or is dead when None."""

    slot: Slot
    incarnation: Incarnation | None
    is_empty: bool = False
    """Its worker has left it for good, and its sessions before: nobody comes in its place."""


@dataclass(frozen=True, slots=True)
class RoomClosedElsewhere:
    """Another worker was asked to delete a room; its sessions here end too."""

    room: str


@dataclass(frozen=True, slots=True)
class EndsHeard:
    """Sessions that ended, in whatever slot: what another worker told, or the answer to AskEnds."""

    ends: tuple[Tombstone, ...]


@dataclass(frozen=True, slots=True)
class DrainBegan:
    """The master lets no more sessions in; those that are open go on."""


@dataclass(frozen=True, slots=True)
class Ticked:
    """About once a second: ages tombstones, sends Load. The first comes after the slot table was first looked at."""


Input = (
    Offered
    | Patched
    | Deleted
    | RoomsAsked
    | RoomsListed
    | RoomDeleted
    | SessionAsked
    | MoveAsked
    | SlotsClosed
    | GiveAll
    | EngineSaid
    | FactHeard
    | SnapshotHeard
    | SlotChanged
    | RoomClosedElsewhere
    | EndsHeard
    | DrainBegan
    | Measured
    | Ticked
)


# --- effects


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
