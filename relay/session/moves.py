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
"""How long the source's facts stand after a move. A fact that another worker missed shows with the next Load, a second
later, and a snapshot is asked for again after one more.
"""
GRACE_SECONDS = 1.0
"""How long an arrived viewer's streams stay attached as they were: its publisher may have been announced a moment ago,
and this worker not heard of it yet.
"""
AGAIN_SECONDS = 0.5
"""The wait before a session whose handshake was under way is moved again: most handshakes take less. After another
failure it is twice as long.
"""
MOVED_AT_ONCE = 32
"""Sessions that a slot moves at once, each tenth of a second, while it is emptied. The target needs some 0.1 ms for
each, for which its other clients wait.
"""


@dataclass(slots=True)
class Departed:
    """A session that moved to another slot, whose facts we still announce."""

    slot: Slot
    room: RoomName
    publications: set[PublicationId]
    until: float


@dataclass(slots=True)
class Moves:
    """The moves of one worker's sessions."""

    closed: frozenset[Slot] = frozenset()
    """Slots that are to have no session."""
    waiting: dict[SessionId, RequestId] = field(default_factory=dict)
    """The request of an operator who waits for the outcome of a move."""
    held: dict[SessionId, list[SessionRequest]] = field(default_factory=dict)
    """Requests for sessions that are on their way: a millisecond later it is known which worker answers them."""
    _departed: dict[SessionId, Departed] = field(default_factory=dict)
    _arrived: dict[SessionId, tuple[RoomName, float]] = field(default_factory=dict)
    """When the grace of each arrived session is over, and its room."""
    _assigned: dict[Slot, int] = field(default_factory=dict)
    """How many sessions began to move to each slot in this second, which its last Load does not count yet."""

    def begin(self, session: Session, slot: Slot) -> MoveTransport:
        """Marks the session as on its way; returns the command that moves it."""
        session.leaving = slot
        self._assigned[slot] = self._assigned.get(slot, 0) + 1
        return MoveTransport(session.transport, slot)

    def depart(self, session: Session, slot: Slot, now: float) -> None:
        """The session moved to `slot`; its facts stand for OVERLAP_SECONDS."""
        publications = set(session.publications) - session.paused
        self._departed[session.id] = Departed(slot, session.room, publications, now + OVERLAP_SECONDS)
        self._arrived.pop(session.id, None)

    def stay(self, session: Session, outcome: Outcome, now: float) -> None:
        """The session stays here, and is not tried again for some time."""
        session.leaving = None
        session.stays_until = now + (AGAIN_SECONDS if outcome is Outcome.HANDSHAKING else 2 * AGAIN_SECONDS)

    def arrive(self, session: Session, now: float) -> None:
        """The session came from another slot. It may have departed from here before."""
        self._departed.pop(session.id, None)
        self._arrived[session.id] = (session.room, now + GRACE_SECONDS)

    def is_past_grace(self, session: SessionId) -> bool:
        """True when the session's streams may be changed: it did not arrive, or its grace is over."""
        return session not in self._arrived

    @property
    def are_known(self) -> bool:
        """True when all other workers had OVERLAP_SECONDS to hear where each departed session went."""
        return not self._departed

    def forget(self, session: SessionId) -> list[RequestId]:
        """The session's move is over; returns the operator's request that waited for it, if any."""
        request = self.waiting.pop(session, None)
        return [] if request is None else [request]

    def moved_to(self, session: SessionId) -> Slot | None:
        """The slot to which a session moved less than OVERLAP_SECONDS ago; None when it did not."""
        departed = self._departed.get(session)
        return None if departed is None else departed.slot

    def handle_tick(self, now: float) -> tuple[list[Fact], set[RoomName]]:
        """Returns facts to announce, and rooms whose arrived viewers' grace is over."""
        self._assigned.clear()
        rooms = {room for room, until in self._arrived.values() if until <= now}
        self._arrived = {session: entry for session, entry in self._arrived.items() if entry[1] > now}
        due = [session for session, departed in self._departed.items() if departed.until <= now]
        return [fact for session in due for fact in self._withdrawn(session)], rooms

    def handle_gone(self, gone: frozenset[SessionId | PublicationId]) -> list[Fact]:
        """Another slot withdrew these; returns the facts by which we withdraw what we still announce of them."""
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
        """The least busy of the other slots that may have sessions, of those in `among` if given; None when there is
        none.
        """
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
    """The fact that a session is on this worker. Source and target of a move announce it in the same words."""
    publishes = session.protocol is Protocol.WHIP
    return ParticipantHere(session.room, session.participant, session.id, publishes, session.opened_at, session.sending)
