"""What one worker's control plane has (sessions, the directory, numbers, counters) and the few things done to all of
them at once: announce, submit, end a session, feed a viewer. Must never know which input asked for it. Read
`relay/whip/requests.py` and `relay/engine_events.py` next, which do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from millrace.relay.config.model import Config
from millrace.relay.contract.clock import Now
from millrace.relay.contract.commands import MAX_RECORD_BYTES, CloseTransport, Command, SaveRecord
from millrace.relay.contract.effects import (
    Announce,
    AskSnapshot,
    DeleteElsewhere,
    Effect,
    SessionEnded,
    SessionMoved,
    SessionOpened,
    Submit,
    TellEnds,
)
from millrace.relay.contract.events import Outcome
from millrace.relay.contract.facts import (
    Envelope,
    Fact,
    Load,
    ParticipantGone,
    ParticipantHere,
    PublicationGone,
    PublicationHere,
    Snapshot,
)
from millrace.relay.contract.ids import (
    NO_REQUEST,
    Incarnation,
    ParticipantId,
    PublicationId,
    RequestId,
    RoomName,
    SessionId,
    Slot,
)
from millrace.relay.contract.inputs import Deleted, EndsHeard, SessionRequest
from millrace.relay.contract.problems import json_reply, moved, not_moved, problem
from millrace.relay.contract.protocol import Protocol
from millrace.relay.contract.refusal import Refusal
from millrace.relay.contract.tombstone import Tombstone, tombstone_view
from millrace.relay.load.balance import STAY_SECONDS, Balance, better_off
from millrace.relay.load.counters import Count, Counters
from millrace.relay.load.pressure import Pressure
from millrace.relay.membership.convergence import Convergence
from millrace.relay.membership.directory import Change, Directory
from millrace.relay.membership.room import is_newer, publications_for
from millrace.relay.membership.tombstones import Tombstones
from millrace.relay.negotiation.answering import host_candidates
from millrace.relay.sdp.lines import SdpLimits
from millrace.relay.session.feeding import feed
from millrace.relay.session.moves import MOVED_AT_ONCE, Moves, here
from millrace.relay.session.numbers import IsForeign, Numbers
from millrace.relay.session.opening import OpenedSession, Opener, link_headers
from millrace.relay.session.pending_reports import Reports
from millrace.relay.session.record import pack_session
from millrace.relay.session.sessions import REPLACED, Session, Sessions


@dataclass(frozen=True, slots=True)
class MediaEndpoint:
    """How clients reach this worker's media, and what it can see of the arena."""

    fingerprint: str
    """As it stands after `a=fingerprint:`."""
    addresses: Sequence[tuple[str, int]]
    """The most wanted first."""
    is_foreign: IsForeign = lambda _: False


class Ledger:
    """Made once; `begin` and `finish` frame each input."""

    def __init__(
        self, config: Config, slot: Slot, incarnation: Incarnation, endpoint: MediaEndpoint, numbers: Numbers
    ) -> None:
        self.config = config
        self.slot = slot
        self.counters = Counters()
        self.directory = Directory(slot)
        self.sessions = Sessions()
        self.tombstones = Tombstones()
        self.reports = Reports()
        self.numbers = numbers
        self.moves = Moves()
        self.balance = Balance()
        candidates = host_candidates(endpoint.addresses)
        self.opener = Opener(self.numbers, endpoint.fingerprint, candidates, config.limits.publications_per_worker)
        self.sdp_limits = SdpLimits(config.limits.sdp_bytes, config.limits.sdp_lines, config.limits.m_lines)
        self.links = link_headers(config.ice.servers)
        self.draining = False
        """Nobody may open a room."""
        self.stopping = False
        """Nobody is let in."""
        self.pressure: Pressure | None = None
        """While it is there, nobody is let in."""
        self.convergence = Convergence()
        self._incarnation = incarnation
        self._sequence = 0
        self.released: list[SessionRequest] = []
        """Requests that were held while their session moved. It is known now where the session is:
        `Control.handle` handles them after the input that told.
        """
        # Of the input that is being handled.
        self.now = Now(0.0, 0.0)
        self._effects: list[Effect] = []
        self._touched: set[RoomName] = set()
        self._unsaved: dict[SessionId, Session] = {}
        """Sessions whose kept records no longer hold."""

    def begin(self, now: Now) -> None:
        """An input has come."""
        self.now, self._effects, self._touched, self._unsaved = now, [], set(), {}

    def finish(self) -> list[Effect]:
        """What is to be done about it. Viewers are fed here, once: what came and went meanwhile they never see."""
        if self.convergence.converges(self.directory.waits_for_others(), self.now.steady):
            self._touched |= {session.room for session in self.sessions.all() if session.adopted}
        commands: list[Command] = []
        for room in self._touched:
            commands += self._feed(room, [one for one in self.sessions.in_room(room) if self._is_fed(one)])
        # In one list with what they tell of: the engine keeps both or neither.
        self.submit(*commands, *(self._save_record(session) for session in self._unsaved.values()))
        if (ends := self.tombstones.to_tell()) and (others := self.directory.others()):
            # Before the facts that withdraw them: whoever misses a session shall know why.
            self._effects.insert(0, TellEnds(others, EndsHeard(ends)))
        return self._effects

    # --- effects

    def add(self, effect: Effect) -> None:
        """Wants something done."""
        self._effects.append(effect)

    def submit(self, *commands: Command) -> None:
        """Wants the engine to do something."""
        if commands:
            self.add(Submit(commands))

    def refuse(self, request: RequestId, refusal: Refusal) -> None:
        """A problem, counted."""
        self.counters.refused(refusal.status)
        self.add(problem(request, refusal.status, refusal.reason, refusal.detail))

    # --- facts

    def announce(self, fact: Fact) -> None:
        """Tells all workers, and our own directory."""
        self._sequence += 1
        self.add(Announce(Envelope(self.slot, self._incarnation, self._sequence, fact)))
        self.apply(self.slot, self.directory.apply_own(fact))

    def apply(self, slot: Slot, change: Change) -> None:
        """Draws the consequences of a change of the directory."""
        self._touched |= change.rooms
        if change.ask:
            self.counters.count(Count.SNAPSHOTS_ASKED)
            self.add(AskSnapshot(slot))
        for publisher in change.publishers:
            self._close_replaced(publisher)
        if slot != self.slot and change.gone:
            for fact in self.moves.handle_gone(change.gone):
                self.announce(fact)

    def snapshot(self) -> Snapshot:
        """All our standing facts."""
        return Snapshot(self.slot, self._incarnation, self._sequence, self.directory.own_facts())

    def load(self) -> Load:
        """How busy we are."""
        return Load(
            len(self.sessions),
            self.sessions.publications,
            self.sessions.subscriptions,
            tuple(sorted(self.counters.values.items())),
        )

    def watched(self, room: RoomName, watches: ParticipantId | None) -> tuple[PublicationHere, ...]:
        """What a viewer with this wish is fed from."""
        return publications_for(self.directory.room(room), watches)

    # --- sessions

    def open(self, opened: OpenedSession) -> None:
        """A new session: in the tables, in the engine, known to all workers."""
        session = opened.session
        self.sessions.add(session)
        self.counters.opened(session.protocol)
        self.submit(*opened.commands)
        self.announce(here(session))
        for publication in session.publications.values():
            self.announce(publication)
        if session.protocol is Protocol.WHEP:
            self.submit(*self._feed(session.room, [session]))
        self.mark_unsaved(session)
        self.add(SessionOpened(session.id, session.protocol, session.room, session.participant))

    def adopt(self, session: Session) -> bool:
        """One that a predecessor or another slot opened, and the engine has; False when its numbers are in use."""
        logs = [log for publication in session.publications.values() for log in publication.logs]
        if self.sessions.get(session.id) is not None or not self.numbers.claim(logs, session.ssrcs):
            return False
        self.sessions.add(session)
        has_moved = self.convergence.adoption_done
        if has_moved:
            self.moves.arrive(session, self.now.steady)
            session.arrived_at = self.now.steady
        self.announce(here(session))
        for publication in session.publications.values():
            if publication.publication not in session.paused:
                self.announce(publication)
        if has_moved:
            self._close_if_replaced(session)
        return True

    def mark_unsaved(self, session: Session) -> None:
        """The session has changed: its successor shall know."""
        self._unsaved[session.id] = session

    def close(self, session: Session, cause: str) -> None:
        """At our own wish; of a session that is leaving, as soon as it is known where it is."""
        if session.leaving is not None:
            session.ends_as = session.ends_as or cause
            return
        self.submit(CloseTransport(session.transport))
        self.end(session, cause)

    def end(self, session: Session, cause: str) -> None:
        """The transport is gone, or will be before any later command: what the session had is free again."""
        for publication in session.publications.values():
            self.numbers.release_logs(publication.logs)
            if publication.publication not in session.paused:
                self.announce(PublicationGone(session.room, publication.publication))
        self.numbers.release_ssrcs(session.ssrcs)
        self.announce(ParticipantGone(session.room, session.id))
        self._unsaved.pop(session.id, None)
        tombstone = self.sessions.remove(session, cause, self.now)
        self.tombstones.add(tombstone)
        self.counters.ended(session.protocol)
        # One that stood still was counted then.
        if session.stalled is None:
            self.counters.failed(cause)
        self.add(SessionEnded(session.id, session.protocol, session.room, session.participant, cause))
        for request in (*self.reports.forget(session), *self.moves.forget(session.id)):
            self.add(json_reply(request, tombstone_view(tombstone)))
        self._release_requests(session)

    # --- moves

    def move(self, session: Session, slot: Slot) -> None:
        """Another slot is to go on with it. The outcome follows (`move_done`)."""
        # Its record has to be whole before it goes.
        if self._unsaved.pop(session.id, None) is not None:
            self.submit(self._save_record(session))
        self.submit(self.moves.begin(session, slot))

    def move_done(self, session: Session, slot: Slot, outcome: Outcome) -> None:
        """The outcome of `move`."""
        requests = self.moves.forget(session.id)
        self.add(SessionMoved(session.id, session.room, session.participant, slot, outcome))
        if outcome is Outcome.MOVED:
            self._release(session, slot)
        else:
            self.moves.stay(session, outcome, self.now.steady)
            self._touched.add(session.room)
            if session.ends_as is not None:
                self.close(session, session.ends_as)
        for request in requests:
            self.add(moved(request, session.id, slot) if outcome is Outcome.MOVED else not_moved(request, outcome))
        self._release_requests(session)

    def move_all(self) -> None:
        """Some of our sessions go wherever there is least to do."""
        can_go = (one for one in self.sessions.all() if one.leaving is None and one.stays_until <= self.now.steady)
        for session in islice(can_go, MOVED_AT_ONCE):
            slot = self.moves.target(self.directory, self.slot)
            if slot is not None:
                self.move(session, slot)

    def balance_load(self, late_seconds: float) -> None:
        """Gives some sessions to a worker that is better off, if this one was late for long enough."""
        late_ms = self.config.limits.late_ms
        # Before it gets so late that nobody is let in any more.
        count = self.balance.wanted(late_seconds * 2000 > late_ms, len(self.sessions), self.now.steady)
        if not count or not self.config.workers.balance or self.slot in self.moves.closed:
            return
        others = better_off(self.directory.loads(), self.slot, len(self.sessions), late_ms)
        begun = 0
        for session in self.sessions.all():
            came_lately = session.arrived_at is not None and self.now.steady - session.arrived_at < STAY_SECONDS
            if begun == count or came_lately or session.leaving is not None or not session.connected:
                continue
            slot = self.moves.target(self.directory, self.slot, others)
            if slot is not None:
                self.move(session, slot)
                self.counters.count(Count.SESSIONS_BALANCED)
                begun += 1
        if begun:
            self.balance.moved(self.now.steady)

    def tick_moves(self) -> None:
        """About once a second."""
        facts, rooms = self.moves.handle_tick(self.now.steady)
        self._touched |= rooms
        for fact in facts:
            self.announce(fact)

    def _release_requests(self, session: Session) -> None:
        self.released += self.moves.held.pop(session.id, [])

    def _release(self, session: Session, slot: Slot) -> None:
        for publication in session.publications.values():
            self.numbers.release_logs(publication.logs)
        self.numbers.release_ssrcs(session.ssrcs)
        self._unsaved.pop(session.id, None)
        self.sessions.release(session)
        self.moves.depart(session, slot, self.now.steady)
        for request in self.reports.forget(session):
            self.refuse(request, Refusal(503, "moved", "The session has just moved to another worker; ask again."))
        if session.ends_as is not None:
            self.add(DeleteElsewhere(slot, Deleted(NO_REQUEST, session.id, None, by_admin=True)))

    # --- what happens to sessions

    def hear_ends(self, ends: Sequence[Tombstone]) -> None:
        """Other workers' sessions. One of them is here when its worker died before its engine had closed it."""
        self.tombstones.hear(ends)
        for tombstone in ends:
            if (session := self.sessions.get(tombstone.session)) is not None:
                self.close(session, tombstone.cause)

    def pause(self, session: Session, publication: PublicationId) -> None:
        """The track said BYE. Browsers do that for a sender without a track, which may get one again."""
        if publication not in session.paused:
            session.paused.add(publication)
            self.mark_unsaved(session)
            self.announce(PublicationGone(session.room, publication))

    def resume(self, session: Session, publication: PublicationId) -> None:
        """The track sends."""
        if publication in session.paused:
            session.paused.remove(publication)
            self.mark_unsaved(session)
            self.announce(session.publications[publication])

    def close_room(self, room: RoomName) -> None:
        """Our part of it."""
        for session in self.sessions.in_room(room):
            self.close(session, "room_deleted")

    def _close_replaced(self, newer: ParticipantHere) -> None:
        """A participant that publishes again: the newer session stands, as with LiveKit."""
        for session in self.sessions.in_room(newer.room):
            if session.protocol is not Protocol.WHIP or session.participant != newer.participant:
                continue
            if is_newer(newer, here(session)):
                self.close(session, REPLACED)

    def _close_if_replaced(self, session: Session) -> None:
        # While it was on its way here, nobody could close it.
        room = self.directory.room(session.room)
        if session.protocol is Protocol.WHIP and room is not None:
            others = [fact for _, fact in room.publishers.values() if fact.participant == session.participant]
            if any(is_newer(other, here(session)) for other in others):
                self.close(session, REPLACED)

    def _is_fed(self, session: Session) -> bool:
        # An adopted viewer is fed already, perhaps from a publication that we have not heard of yet.
        is_known = self.convergence.has_converged and self.moves.is_past_grace(session.id)
        is_fed_already = session.adopted and not is_known
        return session.protocol is Protocol.WHEP and not is_fed_already and session.leaving is None

    def _save_record(self, session: Session) -> SaveRecord:
        record = pack_session(session)
        if len(record) > MAX_RECORD_BYTES:
            # It cannot outlive us; what was kept before would be wrong.
            self.counters.count(Count.RECORDS_TOO_LONG)
            record = b""
        return SaveRecord(session.transport, record)

    def _feed(self, room: RoomName, viewers: Sequence[Session]) -> list[Command]:
        """Attaches and detaches what has changed for these viewers."""
        watched: dict[ParticipantId | None, tuple[PublicationHere, ...]] = {}
        commands: list[Command] = []
        for viewer in viewers:
            if viewer.watches not in watched:
                watched[viewer.watches] = self.watched(room, viewer.watches)
            changes = feed(viewer, watched[viewer.watches])
            if changes:
                commands += changes
                self.mark_unsaved(viewer)
        return commands
