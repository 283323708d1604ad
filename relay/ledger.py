"""What one worker's control plane has (sessions, the directory, numbers, counters) and the few things done to several
of them at once: announce, submit, open, move and end a session, feed a viewer. Must never know which protocol or input
asked for it. Read `relay/session/sessions.py` and `relay/membership/directory.py` next, for the largest two tables.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from millrace.relay.access.decision import Gate
from millrace.relay.access.hook import Held
from millrace.relay.config.model import Config
from millrace.relay.contract.access import HookFailure, HookQuestion, HookReplied
from millrace.relay.contract.boot import CandidateAddress
from millrace.relay.contract.clock import Now
from millrace.relay.contract.commands import MAX_RECORD_BYTES, CloseTransport, CodecName, Command, MediaKind, SaveRecord
from millrace.relay.contract.effects import (
    Announce,
    AskHook,
    AskSnapshot,
    DeleteElsewhere,
    Effect,
    SessionEnded,
    SessionMoved,
    SessionOpened,
    StreamUnplayable,
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
    Sending,
    Snapshot,
)
from millrace.relay.contract.ids import (
    NO_REQUEST,
    Incarnation,
    ParticipantId,
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
from millrace.relay.load.balance import Balance
from millrace.relay.load.counters import Count, Counters
from millrace.relay.load.pressure import Pressure
from millrace.relay.membership.convergence import Convergence
from millrace.relay.membership.directory import Change, Directory
from millrace.relay.membership.room import is_newer, publications_for
from millrace.relay.membership.tombstones import Tombstones
from millrace.relay.sdp.lines import SdpLimits
from millrace.relay.session.feeding import feed
from millrace.relay.session.moves import Moves, here
from millrace.relay.session.numbers import IsForeign, Numbers
from millrace.relay.session.opening import Candidates, OpenedSession, Opener
from millrace.relay.session.pending_reports import Reports
from millrace.relay.session.record import pack_session
from millrace.relay.session.sessions import REPLACED, Session, Sessions


@dataclass(frozen=True, slots=True)
class MediaEndpoint:
    """Where and with which certificate clients reach this worker's media, and which of its track logs others write."""

    fingerprint: str
    """The text after `a=fingerprint:`."""
    addresses: Sequence[CandidateAddress]
    """The likeliest first."""
    is_foreign: IsForeign = lambda _: False


class Ledger:
    """One for each Control. `begin` and `finish` enclose the handling of each input."""

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
        self.gate = Gate(config.auth)
        candidates = Candidates(endpoint.addresses)
        self.opener = Opener(self.numbers, endpoint.fingerprint, candidates, config.limits.publications_per_worker)
        self.sdp_limits = SdpLimits(config.limits.sdp_bytes, config.limits.sdp_lines, config.limits.m_lines)
        self.draining = False
        """True while the server drains: no new room is opened."""
        self.stopping = False
        """True once the server stops: no session is opened."""
        self.pressure: Pressure | None = None
        """What this worker is short of; while it is short, no session is opened."""
        self.convergence = Convergence()
        self.returning: dict[SessionId, Session] = {}
        """Publishers that send again, until they are relied on or are not here any more."""
        self._incarnation = incarnation
        self._sequence = 0
        self.released: list[SessionRequest | Held] = []
        """Requests that were held while their session moved, or while the hook was asked. It is known now where the
        session is, or what the hook says: `Control.handle` handles them after the input that told it.
        """
        # Of the input that is being handled.
        self.now = Now(0.0, 0.0)
        self._effects: list[Effect] = []
        self._touched: set[RoomName] = set()
        self._unsaved: dict[SessionId, Session] = {}
        """Sessions that changed since their records were saved."""

    def begin(self, now: Now) -> None:
        """Starts the handling of one input."""
        self.now, self._effects, self._touched, self._unsaved = now, [], set(), {}

    def finish(self) -> list[Effect]:
        """Ends the handling of one input; returns its effects. Viewers are fed here, once for each input, so that they
        never see what came and went within it.
        """
        if self.convergence.converges(self.directory.waits_for_others(), self.now.steady):
            self._touched |= {session.room for session in self.sessions.all() if session.adopted}
        commands: list[Command] = []
        for room in self._touched:
            commands += self._feed(room, [one for one in self.sessions.in_room(room) if self._is_fed(one)])
        # In one list with the commands that changed the session: after a crash both are there or neither.
        self.submit(*commands, *(self._save_record(session) for session in self._unsaved.values()))
        if (ends := self.tombstones.to_tell()) and (others := self.directory.others()):
            # Before the facts that withdraw these sessions: a worker that finds one gone can say why.
            self._effects.insert(0, TellEnds(others, EndsHeard(ends)))
        return self._effects

    # --- effects

    def add(self, effect: Effect) -> None:
        """Adds an effect."""
        self._effects.append(effect)

    def submit(self, *commands: Command) -> None:
        """Adds commands for the engine."""
        if commands:
            self.add(Submit(commands))

    def refuse(self, request: RequestId, refusal: Refusal) -> None:
        """Answers a request with a problem."""
        self.add(problem(request, refusal.status, refusal.reason, refusal.detail))

    # --- the hook

    def ask_hook(self, question: HookQuestion, request: Held) -> None:
        """Has the request handled again when the hook has answered the question."""
        is_new = self.gate.hook.hold(question, request)
        if isinstance(is_new, Refusal):
            self.refuse(request.request, is_new)
        elif is_new:
            self.add(AskHook(question))

    def hook_answered(self, question: HookQuestion, answer: HookReplied | HookFailure) -> None:
        """Takes the hook's answer, and releases the requests that waited for it."""
        outcome, held = self.gate.hook.take(question, answer, self.now.steady)
        self.counters.hook_answered(outcome)
        self.released += held

    # --- facts

    def announce(self, fact: Fact) -> None:
        """Tells a fact to all workers and to our own directory."""
        self._sequence += 1
        self.add(Announce(Envelope(self.slot, self._incarnation, self._sequence, fact)))
        self.apply(self.slot, self.directory.apply_own(fact))

    def apply(self, slot: Slot, change: Change) -> None:
        """Draws the consequences of a change of the directory that the facts of `slot` made."""
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
        """Our standing facts, for a worker that lacks some."""
        return Snapshot(self.slot, self._incarnation, self._sequence, self.directory.own_facts())

    def load(self) -> Load:
        """How busy this worker is, with its counters."""
        return Load(
            len(self.sessions),
            self.sessions.publications,
            self.sessions.subscriptions,
            tuple(sorted(self.counters.values.items())),
        )

    def watched(self, room: RoomName, watches: ParticipantId | None) -> tuple[PublicationHere, ...]:
        """The publications that a viewer of this room is fed from; `watches` as in `Session.watches`."""
        return publications_for(self.directory.room(room), watches)

    # --- sessions

    def open(self, opened: OpenedSession) -> None:
        """Puts a new session into the tables and the engine, and tells all workers."""
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
        for kind, codec in opened.lacking:
            self._tell_lacking(session, kind, codec)

    def adopt(self, session: Session) -> bool:
        """Adds a session that the engine adopted: our predecessor's or another slot's. False, and nothing is added,
        when the session or one of its track logs is here already.
        """
        logs = [log for publication in session.publications.values() for log in publication.logs]
        if self.sessions.get(session.id) is not None or not self.numbers.claim(logs, session.ssrcs):
            return False
        self.sessions.add(session)
        has_moved = self.convergence.adoption_done
        if has_moved:
            self.moves.arrive(session, self.now.steady)
            session.arrived_at = self.now.steady
        if session.sending is Sending.RETURNS:
            self.returning[session.id] = session
        self.announce(here(session))
        for publication in session.publications.values():
            if publication.publication not in session.paused:
                self.announce(publication)
        if has_moved:
            self._close_if_replaced(session)
        return True

    def mark_unsaved(self, session: Session) -> None:
        """The session has changed, so its record is saved when the input is done."""
        self._unsaved[session.id] = session

    def close(self, session: Session, cause: str) -> None:
        """Ends a session at our own wish. One that is on its way to another slot ends when the outcome of the move is
        known, in whichever slot it then is.
        """
        if session.leaving is not None:
            session.ends_as = session.ends_as or cause
            return
        self.submit(CloseTransport(session.transport))
        self.end(session, cause)

    def end(self, session: Session, cause: str) -> None:
        """Removes a session whose transport is gone, or will be before any later command, and frees its numbers."""
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
        # A session that stalled was counted as failed then.
        if session.stalled is None:
            self.counters.failed(cause)
        self.add(SessionEnded(session.id, session.protocol, session.room, session.participant, cause))
        for request in (*self.reports.forget(session), *self.moves.forget(session.id)):
            self.add(json_reply(request, tombstone_view(tombstone)))
        self._release_requests(session)

    # --- moves

    def move(self, session: Session, slot: Slot) -> None:
        """Begins to move a session to another slot; `move_done` follows."""
        # Its record has to be whole before it goes.
        if self._unsaved.pop(session.id, None) is not None:
            self.submit(self._save_record(session))
        self.submit(self.moves.begin(session, slot))

    def move_done(self, session: Session, slot: Slot, outcome: Outcome) -> None:
        """Handles the outcome of a move, and answers the operator who asked for it."""
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

    def tick_moves(self) -> None:
        """Withdraws the facts of sessions that moved long enough ago; about once a second."""
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
        """Remembers how other workers' sessions ended. One of these is here, and is closed, when its worker died before
        the engine had closed it.
        """
        self.tombstones.hear(ends)
        for tombstone in ends:
            if (session := self.sessions.get(tombstone.session)) is not None:
                self.close(session, tombstone.cause)

    def close_room(self, room: RoomName) -> None:
        """Closes our sessions of a room."""
        for session in self.sessions.in_room(room):
            self.close(session, "room_deleted")

    def _close_replaced(self, newer: ParticipantHere) -> None:
        """Closes our older sessions of a participant that publishes again; the newer one stands, as with LiveKit."""
        for session in self.sessions.in_room(newer.room):
            if session.protocol is not Protocol.WHIP or session.participant != newer.participant:
                continue
            if is_newer(newer, here(session)):
                self.close(session, REPLACED)

    def _close_if_replaced(self, session: Session) -> None:
        # While the session was on its way here, no worker could close it.
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
            # Without a record the session cannot outlive us; the record that was saved before would be wrong.
            self.counters.count(Count.RECORDS_TOO_LONG)
            record = b""
        return SaveRecord(session.transport, record)

    def _feed(self, room: RoomName, viewers: Sequence[Session]) -> list[Command]:
        """Attaches and detaches the streams of these viewers for which something changed; returns the commands."""
        watched: dict[ParticipantId | None, tuple[PublicationHere, ...]] = {}
        commands: list[Command] = []
        for viewer in viewers:
            if viewer.watches not in watched:
                watched[viewer.watches] = self.watched(room, viewer.watches)
            fed = feed(viewer, watched[viewer.watches])
            commands += fed.commands
            if fed.has_changed:
                self.mark_unsaved(viewer)
            for receiving in fed.lacking:
                if receiving.lacks is not None:
                    self._tell_lacking(viewer, receiving.receiver.kind, receiving.lacks)
        return commands

    def _tell_lacking(self, viewer: Session, kind: MediaKind, codec: CodecName) -> None:
        self.counters.unplayable(codec)
        self.add(StreamUnplayable(viewer.id, viewer.room, viewer.participant, kind, codec))
