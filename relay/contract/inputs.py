"""What goes into `Control.handle`: requests of clients and operators, and what the engine, other workers, the master
and the clock tell. Owns the shapes; none must ever hold what can wait, such as a socket or a future. Read
`relay/control.py` next, which takes them.
"""

from dataclasses import dataclass

from millrace.relay.contract.access import HookFailure, HookQuestion, HookReplied
from millrace.relay.contract.events import Event
from millrace.relay.contract.facts import Envelope, Snapshot
from millrace.relay.contract.ids import Incarnation, RequestId, Slot
from millrace.relay.contract.protocol import Protocol
from millrace.relay.contract.tombstone import Tombstone


@dataclass(frozen=True, slots=True)
class Offered:
    """POST /whip/{room} or /whep/{room}."""

    request: RequestId
    protocol: Protocol
    room: str
    token: str | None
    sdp: str
    participant: str | None
    """WHEP: which participant to watch; None for the room's first publisher. WHIP: the name that a publisher chooses
    where nobody needs a token; None for a random one.
    """
    address: str = ""
    """As in `Visitor`, and so is the next."""
    is_other_site: bool = False
    reached_at: str | None = None
    """The address of ours to which the client sent the request; None when it is not known."""
    max_height: str | None = None
    """WHEP: how high the viewer shows pictures, in pixels, as it stands in the query."""


@dataclass(frozen=True, slots=True)
class Patched:
    """PATCH of a session: trickled candidates (204) or an ICE restart (200)."""

    request: RequestId
    session: str
    token: str | None
    if_match: str | None
    fragment: str
    """application/trickle-ice-sdpfrag, RFC 8840."""
    reached_at: str | None = None
    """As in `Offered`."""


@dataclass(frozen=True, slots=True)
class Deleted:
    """DELETE of a session by its client (or by the admin, without a token check)."""

    request: RequestId
    session: str
    token: str | None
    by_admin: bool = False


@dataclass(frozen=True, slots=True)
class RoomsAsked:
    """Admin: GET of one room, or of all rooms when `room` is None."""

    request: RequestId
    room: str | None = None


@dataclass(frozen=True, slots=True)
class RoomsListed:
    """GET /rooms of the public page. It shows no session ids: without tokens whoever knows one can end that session."""

    request: RequestId
    token: str | None
    """Its bearer sees the room that it names, beside those that anybody may watch."""
    address: str = ""


@dataclass(frozen=True, slots=True)
class HookAnswered:
    """What the operator's hook answered, or how it failed to: each AskHook is followed by one."""

    question: HookQuestion
    answer: HookReplied | HookFailure


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
    """These slots are to have no session: none is opened in them or moved there. If ours is one, `MoveAll` follows."""

    slots: frozenset[Slot]


@dataclass(frozen=True, slots=True)
class MoveAll:
    """Moves some of our sessions to other slots, evenly. To be repeated until `Control.is_empty`."""


@dataclass(frozen=True, slots=True)
class EngineSaid:
    """An event of the engine."""

    event: Event


@dataclass(frozen=True, slots=True)
class FactHeard:
    """A fact that another worker announced."""

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
    """True when the slot's worker has retired: it moved its sessions away before, and has no successor."""


@dataclass(frozen=True, slots=True)
class RoomClosedElsewhere:
    """Another worker was asked to delete a room, so the room's sessions on this worker end, too."""

    room: str


@dataclass(frozen=True, slots=True)
class EndsHeard:
    """How sessions of any slots ended: another worker's message, or its answer to AskEnds."""

    ends: tuple[Tombstone, ...]


@dataclass(frozen=True, slots=True)
class DrainBegan:
    """The server drains: no new room is opened, and open rooms go on."""


@dataclass(frozen=True, slots=True)
class Measured:
    """How late this worker is, and how much memory and how many descriptors are left; about once a second."""

    late_seconds: float
    """How late its two loops were on average over some seconds; the larger of both values."""
    memory_bytes: int
    """Memory that can still be had on the machine or in the control group, whichever has less."""
    descriptors: int
    """How many more this process may open."""


@dataclass(frozen=True, slots=True)
class Ticked:
    """About once a second: ages tombstones, announces Load. The first comes after the slot table was first read."""


SessionRequest = Patched | Deleted | SessionAsked | MoveAsked
"""A request for a session that exists or existed, whichever protocol it came by."""

Input = (
    Offered
    | Patched
    | Deleted
    | RoomsAsked
    | RoomsListed
    | HookAnswered
    | RoomDeleted
    | SessionAsked
    | MoveAsked
    | SlotsClosed
    | MoveAll
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
