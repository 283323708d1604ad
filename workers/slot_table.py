"""The master's table of slots in the arena, mapped: who lives, when it last beat, and our own beat. It must never
decide that a worker is dead, which is the master's. Read next: `relay/contract/layout.py`, where everything lies.
"""

import mmap
import time
from dataclasses import dataclass

from millrace.relay.contract.ids import Incarnation, Slot
from millrace.relay.contract.inputs import SlotChanged
from millrace.relay.contract.layout import SlotOffsets, SlotState, slot_offsets


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
    """CLOCK_MONOTONIC; 0 while the slot is not drained."""
    is_wanted: bool
    """Whether it is to have a worker."""

    @property
    def lives(self) -> bool:
        """Whether the master says that a process is there."""
        return self.state in (SlotState.STARTING, SlotState.RUNNING, SlotState.STOPPING, SlotState.RELEASING)

    @property
    def is_empty(self) -> bool:
        """Nobody is there, or will be soon, and nothing was left."""
        return self.state == SlotState.EMPTY and not self.is_wanted

    def drain_deadline(self, now: float, now_us: int) -> float:
        """Unix time at which the slot's sessions are closed; 0 while it is not drained."""
        return round(now + (self.drain_until_us - now_us) / 1e6, 2) if self.drain_until_us else 0.0

    def lacks(self, now_us: int, beat_seconds: float) -> str | None:
        """What keeps its worker from serving, if anything."""
        if self.state != SlotState.RUNNING:
            return f"is {_state_name(self.state)}"
        return "does not beat" if max(self.beat_ages(now_us)) > beat_seconds else None

    def beat_ages(self, now_us: int) -> tuple[float, float]:
        """Seconds since the engine's and the control loop's last beat."""
        return (now_us - self.engine_beat_us) / 1e6, (now_us - self.control_beat_us) / 1e6


class SlotTable:
    """Every slot's row."""

    def __init__(self, arena: int, slots: int, own: Slot) -> None:
        self._slots = [Slot(slot) for slot in range(slots)]
        self._own = own
        # The table is at the arena's beginning; nothing else of it is Python's.
        self._map = mmap.mmap(arena, slot_offsets(slots).incarnation)
        # Word by word, each read and written whole: other processes write, too.
        self._words = memoryview(self._map).cast("Q")
        self._known: dict[Slot, SlotChanged] = {}
        offsets = [slot_offsets(slot) for slot in self._slots]
        words = [word for at in offsets for word in (at.incarnation, at.state, at.wanted, at.closed)]
        self._told_by = [word // 8 for word in (*words, slot_offsets(own).log_level)]
        """Where the master and operators write what workers follow."""
        self._told: list[int] = []

    def rows(self) -> list[SlotRow]:
        """All slots, our own too."""
        return [self._row(slot) for slot in self._slots]

    def changes(self) -> list[SlotChanged]:
        """Which other slots live another life than when last asked. Who never lived is not named."""
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
        """Whether anything of `changes`, `shut`, `is_wanted` and `log_level` may be another than when last asked."""
        words = self._words
        told = [words[word] for word in self._told_by]
        before, self._told = self._told, told
        return told != before

    def beat(self) -> None:
        """Vouches for our control loop."""
        self._words[slot_offsets(self._own).control_beat // 8] = monotonic_us()

    def engine_age(self) -> float:
        """Seconds since our engine's last beat."""
        return (monotonic_us() - self._word(slot_offsets(self._own).engine_beat)) / 1e6

    def is_draining(self) -> bool:
        """Whether the master wants no room opened any more."""
        return self._word(slot_offsets(self._own).drain_until) != 0

    def is_wanted(self) -> bool:
        """Whether the master wants our slot to have a worker."""
        return self._word(slot_offsets(self._own).wanted) != 0

    def closed(self) -> frozenset[Slot]:
        """Slots that an operator wants to have no session."""
        return frozenset(slot for slot in self._slots if self._word(slot_offsets(slot).closed))

    def shut(self) -> frozenset[Slot]:
        """Those, and slots whose workers are to leave: nobody is let in there, and their sessions go elsewhere."""
        leaving = (slot for slot in self._slots if self._is_leaving(slot_offsets(slot)))
        return self.closed().union(leaving)

    def close_slot(self, slot: Slot, is_closed: bool) -> None:
        """Says so, for as long as the arena lasts, whoever lives in the slot."""
        self._words[slot_offsets(slot).closed // 8] = int(is_closed)

    def log_level(self) -> int:
        """The level that the master wants since we booted; 0 for the one we booted with."""
        return self._word(slot_offsets(self._own).log_level)

    def drained(self, is_empty: bool) -> None:
        """Says whether our last session is over. Another one may come: to a room that goes on, or from another slot."""
        at = slot_offsets(self._own)
        self._words[at.drained // 8] = self._word(at.drain_until) if is_empty else 0

    def not_ready(self, beat_seconds: float, needs_all: bool) -> str | None:
        """What keeps the server from letting anybody in, if anything; with `needs_all`, what any worker lacks."""
        rows, closed, now_us = self.rows(), self.closed(), monotonic_us()
        if any(row.drain_until_us for row in rows):
            return "the server is draining"
        lacks = [(row, row.lacks(now_us, beat_seconds)) for row in rows if not row.is_empty]
        what = next((f"worker {row.slot} {lack}" for row, lack in lacks if lack is not None), None)
        if needs_all:
            return what
        if any(lack is None and row.is_wanted and row.slot not in closed for row, lack in lacks):
            return None
        return f"no worker lets anybody in: {what or 'all that serve are drained'}"

    def close(self) -> None:
        """Unmaps."""
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
        )

    def _is_leaving(self, at: SlotOffsets) -> bool:
        return self._word(at.incarnation) != 0 and not self._word(at.wanted)

    def _word(self, offset: int) -> int:
        return self._words[offset // 8]


def monotonic_us() -> int:
    """The clock of beats, the same for all processes."""
    return time.monotonic_ns() // 1000


def _state_name(state: int) -> str:
    return SlotState(state).name.lower() if state in list(SlotState) else f"in state {state}"
