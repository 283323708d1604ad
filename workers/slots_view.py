"""Slots as an operator sees them: who lives there, how many sessions are there, whether there shall be none. It must
never move a session itself. Read next: `workers/slot_table.py`.
"""

from typing import Any

from relay.control import Control
from relay.ids import Slot
from workers.slot_table import SlotTable


class SlotsView:
    """What one worker knows of all."""

    def __init__(self, table: SlotTable, control: Control) -> None:
        self._table = table
        self._control = control

    def view(self) -> list[dict[str, Any]]:
        """Every slot that ever had a worker."""
        closed, loads = self._table.closed(), self._control.loads()
        return [
            {
                "slot": row.slot,
                "lives": row.lives,
                "drained": row.slot in closed,
                "sessions": self._control.directory.sessions_in(row.slot),
                "publications": loads[row.slot].publications if row.slot in loads else 0,
            }
            for row in self._table.rows()
            if row.incarnation
        ]

    def close(self, slot: int, is_closed: bool) -> str | None:
        """Has a slot have no session, or takes that back; the reason when it cannot be."""
        rows = self._table.rows()
        if not any(row.slot == slot and row.incarnation for row in rows):
            return "no-slot"
        living = [row.slot for row in rows if row.lives and row.is_wanted]
        if is_closed and not set(living) - self._table.closed() - {Slot(slot)}:
            return "last-slot"
        self._table.close_slot(Slot(slot), is_closed)
        return None
