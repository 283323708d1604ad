"""The control plane of one worker as a reducer: an input and the time go in, effects come out. Owns the dispatch; must
never wait, read a clock or draw a random number. Read next what an input leads to: `relay/whip/requests.py` (clients),
`relay/admin/requests.py` (operators), `relay/engine_events.py`, `relay/membership/directory.py` (other workers).
"""

from typing import assert_never

from millrace.relay.admin.requests import (
    handle_move_asked,
    handle_room_deleted,
    handle_rooms_asked,
    handle_rooms_listed,
    handle_session_asked,
)
from millrace.relay.config.model import Config
from millrace.relay.contract.clock import Now
from millrace.relay.contract.effects import AskEnds, Effect
from millrace.relay.contract.facts import Load, Snapshot
from millrace.relay.contract.ids import Incarnation, RoomName, Slot
from millrace.relay.contract.inputs import (
    Deleted,
    DrainBegan,
    EndsHeard,
    EngineSaid,
    FactHeard,
    HookAnswered,
    Input,
    Measured,
    MoveAll,
    MoveAsked,
    Offered,
    Patched,
    RoomClosedElsewhere,
    RoomDeleted,
    RoomsAsked,
    RoomsListed,
    SessionAsked,
    SlotChanged,
    SlotsClosed,
    SnapshotHeard,
    Ticked,
)
from millrace.relay.contract.refusal import Refusal
from millrace.relay.engine_events import handle_event
from millrace.relay.leaving import balance_load, move_all
from millrace.relay.ledger import Ledger, MediaEndpoint
from millrace.relay.load.counters import Counters
from millrace.relay.load.pressure import pressure_of
from millrace.relay.membership.directory import Directory
from millrace.relay.membership.tombstones import ASKED, Tombstones
from millrace.relay.publishing import tick_returns
from millrace.relay.session.numbers import Numbers, Random
from millrace.relay.session.sessions import Sessions
from millrace.relay.whip.requests import handle_deleted, handle_offered, handle_patched

__all__ = ["Control", "MediaEndpoint"]


class Control:
    """One worker's control plane. Every method returns at once. `random(n)` gives n random bytes fit for secrets."""

    def __init__(
        self, config: Config, slot: Slot, incarnation: Incarnation, endpoint: MediaEndpoint, random: Random
    ) -> None:
        numbers = Numbers(random, slot, config.arena.logs_per_slot, endpoint.is_foreign)
        self._ledger = Ledger(config, slot, incarnation, endpoint, numbers)

    def handle(self, received: Input, now: Now) -> list[Effect]:
        """Handles one input that came `now`. Returns the effects, to be performed in their order."""
        ledger = self._ledger
        ledger.begin(now)
        self._dispatch(received, now)
        while ledger.released:
            self._dispatch(ledger.released.pop(0), now)
        return ledger.finish()

    def stop(self, now: Now) -> list[Effect]:
        """Closes all sessions and opens no more. The caller performs the effects, then stops."""
        ledger = self._ledger
        ledger.begin(now)
        ledger.stopping = True
        for session in ledger.sessions.all():
            ledger.close(session, "stopping")
        return ledger.finish()

    def snapshot(self) -> Snapshot:
        """Answers another worker's SnapshotAsked."""
        return self._ledger.snapshot()

    def recent_tombstones(self) -> EndsHeard:
        """Answers another worker's EndsAsked."""
        return EndsHeard(self._ledger.tombstones.recent())

    def loads(self) -> dict[Slot, Load]:
        """The last Load of each living worker, ours included, for the metrics of the whole box."""
        return self._ledger.directory.loads()

    @property
    def has_converged(self) -> bool:
        """True once adoption is done and every living worker's snapshot is in, or the time for that is over."""
        return self._ledger.convergence.has_converged

    @property
    def is_empty(self) -> bool:
        """True when this worker has no session. One on its way to another slot counts until it has moved."""
        return len(self._ledger.sessions) == 0

    @property
    def is_done(self) -> bool:
        """True when the worker may exit: it has no session, and all others know where its sessions went."""
        return self.is_empty and self._ledger.moves.are_known

    @property
    def counters(self) -> Counters:
        """The counters of control; the caller counts its own events in them, too."""
        return self._ledger.counters

    @property
    def directory(self) -> Directory:
        """All workers' facts, to read."""
        return self._ledger.directory

    @property
    def sessions(self) -> Sessions:
        """This worker's sessions, to read."""
        return self._ledger.sessions

    @property
    def tombstones(self) -> Tombstones:
        """How sessions of all slots ended, to read."""
        return self._ledger.tombstones

    def _dispatch(self, received: Input, now: Now) -> None:
        ledger = self._ledger
        match received:
            case Offered():
                handle_offered(ledger, received)
            case Patched():
                handle_patched(ledger, received)
            case Deleted():
                handle_deleted(ledger, received)
            case SessionAsked():
                handle_session_asked(ledger, received)
            case MoveAsked():
                handle_move_asked(ledger, received)
            case RoomsAsked():
                handle_rooms_asked(ledger, received)
            case RoomsListed():
                handle_rooms_listed(ledger, received)
            case HookAnswered(question, answer):
                ledger.hook_answered(question, answer)
            case RoomDeleted():
                handle_room_deleted(ledger, received)
            case SlotsClosed():
                ledger.moves.closed = received.slots
            case MoveAll():
                move_all(ledger)
            case EngineSaid():
                handle_event(ledger, received.event)
            case FactHeard():
                ledger.apply(received.envelope.slot, ledger.directory.handle_envelope(received.envelope, now.steady))
            case SnapshotHeard():
                ledger.apply(received.snapshot.slot, ledger.directory.handle_snapshot(received.snapshot, now.steady))
            case SlotChanged(slot, is_empty=True):
                ledger.apply(slot, ledger.directory.handle_empty(slot))
            case SlotChanged(slot, incarnation):
                ledger.apply(slot, ledger.directory.handle_slot(slot, incarnation, now.steady))
            case RoomClosedElsewhere():
                ledger.close_room(RoomName(received.room))
            case EndsHeard(ends):
                ledger.hear_ends(ends)
            case DrainBegan():
                ledger.draining = True
            case Measured():
                ledger.pressure = pressure_of(received, ledger.config.limits)
                balance_load(ledger, received.late_seconds)
            case Ticked():
                self._ticked(now.steady)
            case _:
                assert_never(received)

    def _ticked(self, now: float) -> None:
        ledger = self._ledger
        if not ledger.convergence.slots_seen:
            ledger.convergence.slots_seen = True
            for slot in ledger.directory.neighbours()[:ASKED]:
                ledger.add(AskEnds(slot))
        ledger.tombstones.handle_tick(now)
        ledger.tick_moves()
        tick_returns(ledger)
        for request in ledger.reports.handle_tick(now):
            ledger.refuse(request, Refusal(504, "no-report", "The engine did not report in time."))
        for slot, change in ledger.directory.handle_tick(now):
            ledger.apply(slot, change)
        ledger.announce(ledger.load())
