"""The slot table in the arena, mapped: which slots live, when their workers last beat, and what the master and
operators ask of them. Writes our own beat. It must never decide that a worker is dead, as the master does that. Read
next: `relay/contract/layout.py`, where everything lies.
"""

import mmap
import time
from dataclasses import dataclass

from millrace.relay.contract.ids import Incarnation, Slot
from millrace.relay.contract.inputs import SlotChanged
from millrace.relay.contract.layout import LINES_DROPPED, SlotOffsets, SlotState, slot_offsets

SILENT = "does not beat"


@dataclass(frozen=True, slots=True)
class SlotRow:
    """One slot at one moment."""

    slot: Slot
    incarnation: Incarnation
    pid: int
    state: int
    engine_beat_us: int
    """CLOCK_MONOTONIC; 0 before the first."""
    control_beat_us: int
    drain_until_us: int
    """CLOCK_MONOTONIC; 0 while the server does not drain."""
    is_wanted: bool
    """True when the slot is to have a worker."""
    deaths: int
    """Of its workers, unasked."""
    replacements: int
    """Of its workers, by a successor, as they were asked to."""
    is_down: bool
    """True when no worker serves there, and none will in a moment, by what the master wrote."""

    @property
    def lives(self) -> bool:
        """True when the slot has a worker, by what the master wrote."""
        return self.state in (SlotState.STARTING, SlotState.RUNNING, SlotState.STOPPING, SlotState.RELEASING)

    @property
    def is_empty(self) -> bool:
        """True when the slot has neither a worker nor sessions, and will get none soon."""
        return self.state == SlotState.EMPTY and not self.is_wanted

    def drain_deadline(self, now: float, now_us: int) -> float:
        """Returns the Unix time at which the slot's sessions are closed; 0 while the server does not drain."""
        return round(now + (self.drain_until_us - now_us) / 1e6, 2) if self.drain_until_us else 0.0

    def lacks(self, now_us: int, beat_seconds: float) -> str | None:
        """Returns what keeps the slot's worker from serving; None when it serves."""
        if self.state != SlotState.RUNNING:
            return f"is {_state_name(self.state)}"
        return SILENT if max(self.beat_ages(now_us)) > beat_seconds else None

    def beat_ages(self, now_us: int) -> tuple[float, float]:
        """Returns the seconds since the engine's and the control loop's last beat."""
        return (now_us - self.engine_beat_us) / 1e6, (now_us - self.control_beat_us) / 1e6


class SlotTable:
    """Every slot's row."""

    def __init__(self, arena: int, slots: int, own: Slot) -> None:
        self._slots = [Slot(slot) for slot in range(slots)]
        self._own = own
        # The table is at the arena's beginning. All behind it is the engines'.
        self._map = mmap.mmap(arena, slot_offsets(slots).incarnation)
        # Whole words, as other processes read and write them at the same time.
        self._words = memoryview(self._map).cast("Q")
        self._known: dict[Slot, SlotChanged] = {}
        offsets = [slot_offsets(slot) for slot in self._slots]
        words = [word for at in offsets for word in (at.incarnation, at.state, at.wanted, at.closed, at.down)]
        self._followed_words = [word // 8 for word in (*words, slot_offsets(own).log_level)]
        """Indexes of the words in which the master and operators write what workers follow."""
        self._followed: list[int] = []

    def rows(self) -> list[SlotRow]:
        """Returns all slots, our own too."""
        return [self._row(slot) for slot in self._slots]

    def changes(self) -> list[SlotChanged]:
        """Returns the other slots whose life has changed since the last call. Slots that never lived are left out."""
        changed = []
        for row in self.rows():
            if row.slot == self._own or row.incarnation == 0:
                continue
            seen = SlotChanged(row.slot, row.incarnation if row.lives else None, row.is_empty)
            if self._known.get(row.slot) != seen:
                self._known[row.slot] = seen
                changed.append(seen)
        return changed

    def was_written(self) -> bool:
        """True when `changes`, `unavailable`, `is_wanted` or `log_level` may answer otherwise than at the last call."""
        words = self._words
        followed = [words[word] for word in self._followed_words]
        before, self._followed = self._followed, followed
        return followed != before

    def beat(self) -> None:
        """Writes that our control loop runs."""
        self._words[slot_offsets(self._own).control_beat // 8] = monotonic_us()

    def engine_age(self) -> float:
        """Returns the seconds since our engine's last beat."""
        return (monotonic_us() - self._word(slot_offsets(self._own).engine_beat)) / 1e6

    def is_draining(self) -> bool:
        """True when the server drains: no room is to be opened any more."""
        return self._word(slot_offsets(self._own).drain_until) != 0

    def is_wanted(self) -> bool:
        """True when our slot is to have a worker."""
        return self._word(slot_offsets(self._own).wanted) != 0

    def deserted(self, beat_seconds: float) -> frozenset[Slot]:
        """Returns the slots whose connections our worker is to take, as theirs takes none: those that are down or do
        not beat, if ours is the first that serves. Without a master nobody is told to be down, so beats tell.
        """
        now_us = monotonic_us()
        rows = [row for row in self.rows() if not row.is_empty]
        absent = [row for row in rows if row.is_down or row.lacks(now_us, beat_seconds) == SILENT]
        serving = (row for row in rows if row.state == SlotState.RUNNING and row.is_wanted and row not in absent)
        first = next(serving, None)
        if first is None or first.slot != self._own:
            return frozenset()
        return frozenset(row.slot for row in absent)

    def closed(self) -> frozenset[Slot]:
        """Returns the slots that an operator has drained."""
        return frozenset(slot for slot in self._slots if self._word(slot_offsets(slot).closed))

    def unavailable(self) -> frozenset[Slot]:
        """Returns the slots that take no session: drained by an operator, or with a worker that is to leave."""
        leaving = (slot for slot in self._slots if self._is_leaving(slot_offsets(slot)))
        return self.closed().union(leaving)

    def close_slot(self, slot: Slot, is_closed: bool) -> None:
        """Drains a slot, or takes that back. It holds for the slot's later workers, too, as long as the arena lasts."""
        self._words[slot_offsets(slot).closed // 8] = int(is_closed)

    def log_level(self) -> int:
        """Returns the log level that the master has set since our start; 0 for the configured one."""
        return self._word(slot_offsets(self._own).log_level)

    def report_drained(self, is_empty: bool) -> None:
        """Writes whether we have no session. One may still come: to a room that goes on, or from another slot."""
        at = slot_offsets(self._own)
        self._words[at.drained // 8] = self._word(at.drain_until) if is_empty else 0

    def add_lines_dropped(self, count: int) -> None:
        """Counts lines of the log that we have dropped. A successor goes on counting."""
        if count:
            self._words[slot_offsets(self._own).lines_dropped // 8] += count

    def lines_dropped(self) -> dict[str, int]:
        """Returns how many lines of the log were dropped, by the master and by each slot's workers."""
        by_slot = {str(slot): self._word(slot_offsets(slot).lines_dropped) for slot in self._slots}
        return {"master": self._word(LINES_DROPPED), **by_slot}

    def not_ready(self, beat_seconds: float, needs_all: bool) -> str | None:
        """Returns why no worker takes new sessions; None when one does. With `needs_all`, returns why any one of the
        workers does not serve.
        """
        rows, closed, now_us = self.rows(), self.closed(), monotonic_us()
        if any(row.drain_until_us for row in rows):
            return "the server is draining"
        lacks = [(row, row.lacks(now_us, beat_seconds)) for row in rows if not row.is_empty]
        what = next((f"worker {row.slot} {lack}" for row, lack in lacks if lack is not None), None)
        if needs_all:
            return what
        if any(lack is None and row.is_wanted and row.slot not in closed for row, lack in lacks):
            return None
        return f"no worker takes sessions: {what or 'all that serve are drained'}"

    def close(self) -> None:
        """Unmaps the table."""
        self._words.release()
        self._map.close()

    def _row(self, slot: Slot) -> SlotRow:
        at, word = slot_offsets(slot), self._word
        return SlotRow(
            slot,
            Incarnation(word(at.incarnation)),
            word(at.pid),
            word(at.state),
            word(at.engine_beat),
            word(at.control_beat),
            word(at.drain_until),
            word(at.wanted) != 0,
            word(at.deaths),
            word(at.replacements),
            word(at.down) != 0,
        )

    def _is_leaving(self, at: SlotOffsets) -> bool:
        return self._word(at.incarnation) != 0 and not self._word(at.wanted)

    def _word(self, offset: int) -> int:
        return self._words[offset // 8]


def monotonic_us() -> int:
    """Returns the clock of beats, which is the same for all processes, in microseconds."""
    return time.monotonic_ns() // 1000


def _state_name(state: int) -> str:
    return SlotState(state).name.lower() if state in list(SlotState) else f"in state {state}"
