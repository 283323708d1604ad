"""Slots as an operator sees them: whether a worker lives there, its sessions and its load, whether the slot is drained.
Drains a slot, too, but must never move a session itself. Read next: `workers/slot_table.py`, where a drain is written.
"""

from collections.abc import Callable, Mapping
from typing import Any

from millrace.relay.contract.facts import Load
from millrace.relay.contract.ids import Slot
from millrace.relay.control import Control
from millrace.relay.load.counters import Seconds, microseconds
from millrace.workers.slot_table import SlotTable


class SlotsView:
    """What this worker knows of all slots."""

    def __init__(self, table: SlotTable, control: Control, stats: Callable[[], list[dict[str, int]]]) -> None:
        self._table = table
        self._control = control
        self._stats = stats
        """The engines' counters by name, for each slot."""

    def view(self) -> list[dict[str, Any]]:
        """Returns every slot that ever had a worker, as plain values."""
        closed, loads, stats = self._table.closed(), self._control.loads(), self._stats()
        return [
            {
                "slot": row.slot,
                "lives": row.lives,
                "drained": row.slot in closed,
                "sessions": self._control.directory.sessions_in(row.slot),
                "publications": loads[row.slot].publications if row.slot in loads else 0,
                **_work(stats[row.slot], loads.get(row.slot)),
            }
            for row in self._table.rows()
            if row.incarnation
        ]

    def close(self, slot: int, is_closed: bool) -> str | None:
        """Drains a slot, or takes that back. Returns the reason when it refuses: `no-slot` or `last-slot`."""
        rows = self._table.rows()
        if not any(row.slot == slot and row.incarnation for row in rows):
            return "no-slot"
        living = [row.slot for row in rows if row.lives and row.is_wanted]
        if is_closed and not set(living) - self._table.closed() - {Slot(slot)}:
            return "last-slot"
        self._table.close_slot(Slot(slot), is_closed)
        return None


def _work(engine: Mapping[str, int], load: Load | None) -> dict[str, Any]:
    """Returns what all workers of the slot have done so far, and how late the present one is."""
    control_us = dict(load.counters).get(microseconds(Seconds.CONTROL_LATE), 0) if load is not None else 0
    prefix = "histogram.engine_late."
    late = {name.removeprefix(prefix): count for name, count in engine.items() if name.startswith(prefix)}
    return {
        "packets_in": engine.get("packets_received", 0),
        "packets_out": engine.get("packets_forwarded", 0),
        "drops": sum(count for name, count in engine.items() if name.startswith("drops.")),
        "kernel_drops": sum(count for name, count in engine.items() if name.startswith("kernel_drops.")),
        # How many rounds of the engine were late, by the bucket's upper bound in microseconds; `sum` is their total.
        "engine_late_us": late,
        "control_late_ms": round(control_us / 1000, 3),
    }
