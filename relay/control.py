"""The control plane of one worker as a reducer: an input and the time go in, effects come out. Owns the dispatch; must
never wait, read a clock or draw a random number. Read `relay/whip/requests.py` (clients), `relay/admin/requests.py`
(operators), `relay/engine_events.py` and `relay/membership/directory.py` (what other workers said) next;
`relay/ledger.py` has the tables.
"""

from typing import assert_never

from millrace.relay.admin.requests import move_asked, room_deleted, rooms_asked, rooms_listed, session_asked
from millrace.relay.config.model import Config
from millrace.relay.contract.clock import Moment
from millrace.relay.contract.effects import AskEnds, Effect
from millrace.relay.contract.facts import Load, Snapshot
from millrace.relay.contract.ids import Incarnation, RoomName, Slot
from millrace.relay.contract.inputs import (
    Deleted,
    DrainBegan,
    EndsHeard,
    EngineSaid,
    FactHeard,
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
from millrace.relay.engine_events import engine_said
from millrace.relay.ledger import Ledger, Reach
from millrace.relay.load.counters import Counters
from millrace.relay.load.pressure import pressure_of
from millrace.relay.membership.directory import Directory
from millrace.relay.membership.tombstones import ASKED, Ends
from millrace.relay.session.numbers import Numbers, Random
from millrace.relay.session.sessions import Sessions
from millrace.relay.whip.requests import deleted, offered, patched

__all__ = ["Control", "Reach"]


class Control:
    """One worker's control plane. Every method returns at once; `random` gives so many random bytes."""

    def __init__(self, config: Config, slot: Slot, incarnation: Incarnation, reach: Reach, random: Random) -> None:
        numbers = Numbers(random, slot, config.arena.logs_per_slot, reach.is_lent)
        self._ledger = Ledger(config, slot, incarnation, reach, numbers)

    def handle(self, said: Input, now: Moment) -> list[Effect]:
        """What is to be done about one input that comes `now`, in order."""
        ledger = self._ledger
        ledger.begin(now)
        self._dispatch(said, now)
        while ledger.released:
            self._dispatch(ledger.released.pop(0), now)
        return ledger.finish()

    def drain(self, now: Moment) -> list[Effect]:
        """Takes no more sessions and closes those that are open. Run the effects, then stop."""
        ledger = self._ledger
        ledger.begin(now)
        ledger.stopping = True
        for session in ledger.sessions.all():
            ledger.close(session, "stopping")
        return ledger.finish()

    def snapshot(self) -> Snapshot:
        """The answer to another worker's SnapshotAsked."""
        return self._ledger.snapshot()

    def own_ends(self) -> EndsHeard:
        """The answer to another worker's EndsAsked."""
        return EndsHeard(self._ledger.ends.recent())

    def loads(self) -> dict[Slot, Load]:
        """The last Load of each living worker, ours included, for the metrics of the whole box."""
        return self._ledger.directory.loads()

    @property
    def is_settled(self) -> bool:
        """Whether the directory is as whole as it will soon be after a start."""
        return self._ledger.settling.is_settled

    @property
    def is_empty(self) -> bool:
        """Whether no session is here, nor on its way from here."""
        return len(self._ledger.sessions) == 0

    @property
    def is_done(self) -> bool:
        """Whether nobody would miss us: it is empty here, and the others know where every session is."""
        return self.is_empty and self._ledger.moves.are_known

    @property
    def counters(self) -> Counters:
        """The caller may count its own here too."""
        return self._ledger.counters

    @property
    def directory(self) -> Directory:
        """To look at."""
        return self._ledger.directory

    @property
    def sessions(self) -> Sessions:
        """To look at."""
        return self._ledger.sessions

    @property
    def ends(self) -> Ends:
        """To look at."""
        return self._ledger.ends

    def _dispatch(self, said: Input, now: Moment) -> None:
        ledger = self._ledger
        match said:
            case Offered():
                offered(ledger, said)
            case Patched():
                patched(ledger, said)
            case Deleted():
                deleted(ledger, said)
            case SessionAsked():
                session_asked(ledger, said)
            case MoveAsked():
                move_asked(ledger, said)
            case RoomsAsked():
                rooms_asked(ledger, said)
            case RoomsListed():
                rooms_listed(ledger, said)
            case RoomDeleted():
                room_deleted(ledger, said)
            case SlotsClosed():
                ledger.moves.closed = said.slots
            case MoveAll():
                ledger.give_all()
            case EngineSaid():
                engine_said(ledger, said.event)
            case FactHeard():
                ledger.take(said.envelope.slot, ledger.directory.handle_envelope(said.envelope, now.steady))
            case SnapshotHeard():
                ledger.take(said.snapshot.slot, ledger.directory.handle_snapshot(said.snapshot, now.steady))
            case SlotChanged(slot, is_empty=True):
                ledger.take(slot, ledger.directory.handle_empty(slot))
            case SlotChanged(slot, incarnation):
                ledger.take(slot, ledger.directory.handle_slot(slot, incarnation, now.steady))
            case RoomClosedElsewhere():
                ledger.close_room(RoomName(said.room))
            case EndsHeard(ends):
                ledger.hear_ends(ends)
            case DrainBegan():
                ledger.draining = True
            case Measured():
                ledger.pressure = pressure_of(said, ledger.config.limits)
                ledger.balance_load(said.late_seconds)
            case Ticked():
                self._ticked(now.steady)
            case _:
                assert_never(said)

    def _ticked(self, now: float) -> None:
        ledger = self._ledger
        if not ledger.settling.slots_seen:
            ledger.settling.slots_seen = True
            for slot in ledger.directory.neighbours()[:ASKED]:
                ledger.add(AskEnds(slot))
        ledger.ends.handle_tick(now)
        ledger.tick_moves()
        for request in ledger.reports.handle_tick(now):
            ledger.refuse(request, Refusal(504, "no-report", "The engine did not report in time."))
        for slot, change in ledger.directory.handle_tick(now):
            ledger.take(slot, change)
        ledger.announce(ledger.load())
