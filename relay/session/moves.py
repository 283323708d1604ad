"""Sessions that move from this slot to another, or arrive from one, while their clients go on. Owns what is known of
each until the others know too; must never know how the engine does it. Read `relay/ledger.py` next, which begins moves
and draws the consequences.

    source   MoveTransport ---> MoveDone(moved) ---> its facts stand for OVERLAP_SECONDS more, then are withdrawn
    target   TransportAdopted ---> its facts are announced at once; its streams stay as they are for GRACE_SECONDS

Both workers announce the same facts for OVERLAP_SECONDS, and the directory counts them once. So no viewer is detached,
in whatever order the bus delivers. A fact that the target withdraws meanwhile, the source withdraws too.
"""

from dataclasses import dataclass, field

from millrace.relay.contract.commands import MoveTransport
from millrace.relay.contract.events import Outcome
from millrace.relay.contract.facts import Fact, ParticipantGone, ParticipantHere, PublicationGone
from millrace.relay.contract.ids import PublicationId, RequestId, RoomName, SessionId, Slot
from millrace.relay.contract.inputs import SessionRequest
from millrace.relay.contract.protocol import Protocol
from millrace.relay.membership.directory import Directory
from millrace.relay.session.sessions import Session

OVERLAP_SECONDS = 3.0
"""A fact that was lost shows with the next Load, a second later, and a snapshot is asked for again after another."""
GRACE_SECONDS = 1.0
"""What fed an arrived viewer may have been announced a moment ago, and not heard here yet."""
AGAIN_SECONDS = 0.5
"""After a move that failed: most handshakes take less."""
MOVED_AT_ONCE = 32
"""Of a whole slot, each tenth of a second: the taker needs some 0.1 ms for each, and its other clients wait as long."""


@dataclass(slots=True)
class Departed:
    """A session that moved away, whose facts still stand."""

    slot: Slot
    room: RoomName
    publications: set[PublicationId]
    until: float


@dataclass(slots=True)
class Moves:
    """This worker's."""

    closed: frozenset[Slot] = frozenset()
    """Slots that are to have no session."""
    waiting: dict[SessionId, RequestId] = field(default_factory=dict)
    """Who wants to know what comes of a move."""
    held: dict[SessionId, list[SessionRequest]] = field(default_factory=dict)
    """Requests for sessions that are on their way: a millisecond later it is known whose they are."""
    _departed: dict[SessionId, Departed] = field(default_factory=dict)
    _arrived: dict[SessionId, tuple[RoomName, float]] = field(default_factory=dict)
    """Until when their streams are left as they are."""
    _assigned: dict[Slot, int] = field(default_factory=dict)
    """Sessions that went there since its last Load."""

    def begin(self, session: Session, slot: Slot) -> MoveTransport:
        """Begins a move."""
        session.leaving = slot
        self._assigned[slot] = self._assigned.get(slot, 0) + 1
        return MoveTransport(session.transport, slot)

    def depart(self, session: Session, slot: Slot, now: float) -> None:
        """It has moved."""
        publications = set(session.publications) - session.paused
        self._departed[session.id] = Departed(slot, session.room, publications, now + OVERLAP_SECONDS)
        self._arrived.pop(session.id, None)

    def stay(self, session: Session, outcome: Outcome, now: float) -> None:
        """It has not."""
        session.leaving = None
        session.stays_until = now + (AGAIN_SECONDS if outcome is Outcome.HANDSHAKING else 2 * AGAIN_SECONDS)

    def arrive(self, session: Session, now: float) -> None:
        """It came from another slot; perhaps it was here before."""
        self._departed.pop(session.id, None)
        self._arrived[session.id] = (session.room, now + GRACE_SECONDS)

    def is_past_grace(self, session: SessionId) -> bool:
        """Whether its streams may be changed."""
        return session not in self._arrived

    @property
    def are_known(self) -> bool:
        """Whether all others have had the time to hear where every session went."""
        return not self._departed

    def forget(self, session: SessionId) -> list[RequestId]:
        """The move is over: who wants to know."""
        request = self.waiting.pop(session, None)
        return [] if request is None else [request]

    def moved_to(self, session: SessionId) -> Slot | None:
        """Where a session is that left lately."""
        departed = self._departed.get(session)
        return None if departed is None else departed.slot

    def handle_tick(self, now: float) -> tuple[list[Fact], set[RoomName]]:
        """Facts to announce, and rooms whose viewers are to be looked at."""
        self._assigned.clear()
        rooms = {room for room, until in self._arrived.values() if until <= now}
        self._arrived = {session: entry for session, entry in self._arrived.items() if entry[1] > now}
        due = [session for session, departed in self._departed.items() if departed.until <= now]
        return [fact for session in due for fact in self._withdrawn(session)], rooms

    def handle_gone(self, gone: frozenset[SessionId | PublicationId]) -> list[Fact]:
        """Another slot has withdrawn these; of what departed, so do we."""
        facts: list[Fact] = []
        for session, departed in list(self._departed.items()):
            if session in gone:
                facts += self._withdrawn(session)
                continue
            for publication in departed.publications & gone:
                departed.publications.discard(publication)
                facts.append(PublicationGone(departed.room, publication))
        return facts

    def target(self, directory: Directory, own: Slot, among: frozenset[Slot] | None = None) -> Slot | None:
        """The least busy of the other slots that may have sessions."""
        loads = directory.loads()
        open_slots = [slot for slot in directory.living() if slot != own and slot not in self.closed]
        open_slots = [slot for slot in open_slots if among is None or slot in among]
        return min(
            open_slots, key=lambda slot: (loads[slot].sessions + self._assigned.get(slot, 0), slot), default=None
        )

    def _withdrawn(self, session: SessionId) -> list[Fact]:
        departed = self._departed.pop(session)
        gone: list[Fact] = [PublicationGone(departed.room, publication) for publication in departed.publications]
        return [*gone, ParticipantGone(departed.room, session)]


def here(session: Session) -> ParticipantHere:
    """The fact that a session is here, the same from every slot."""
    publishes = session.protocol is Protocol.WHIP
    return ParticipantHere(session.room, session.participant, session.id, publishes, session.opened_at)
