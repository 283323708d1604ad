"""When a worker that has too much to do moves sessions to others, and how many; which other workers have room. Owns the
patience, so that sessions do not go to and fro; must never choose the target. Read next: `relay/ledger.py`, which
moves them.

A worker acts when it was late for LATE_SECONDS in a row while another worker is clearly better off. Then it rests until
the effect can be seen. A session that came from another slot less than STAY_SECONDS ago stays.
"""

from collections.abc import Mapping

from millrace.relay.config.model import LimitsConfig
from millrace.relay.contract.facts import Load
from millrace.relay.contract.ids import Slot
from millrace.relay.load.counters import Seconds, microseconds

LATE_SECONDS = 5
"""Seconds in a row that a worker has to be late before it moves sessions: a burst of joins is over by then."""
REST_SECONDS = 30.0
"""The wait after sessions were moved. Lateness is an average over seconds, and a move itself costs something."""
SHARE = 10
"""One session in so many moves at a time: a worker that is late with a hundred is well with ninety."""
STAY_SECONDS = 300.0
"""How long a session that has moved stays in its slot."""


class Balance:
    """When one worker moves sessions away because of its load."""

    def __init__(self) -> None:
        self._late_for = 0
        self._rests_until = 0.0

    def wanted(self, late: bool, sessions: int, now: float) -> int:
        """Called about once a second, with whether the worker is late. Returns how many of its sessions are to move."""
        self._late_for = self._late_for + 1 if late else 0
        if self._late_for < LATE_SECONDS or now < self._rests_until:
            return 0
        return -(-sessions // SHARE)

    def moved(self, now: float) -> None:
        """Some sessions began to move; the worker rests."""
        self._late_for = 0
        self._rests_until = now + REST_SECONDS


def better_off(loads: Mapping[Slot, Load], own: Slot, sessions: int, late_ms: int) -> frozenset[Slot]:
    """Slots that have at least a fifth fewer sessions, and are late by less than a quarter of `late_ms`."""
    return frozenset(
        slot
        for slot, load in loads.items()
        if slot != own and load.sessions * 5 <= sessions * 4 and _late_us(load) < late_ms * 250
    )


def with_room(loads: Mapping[Slot, Load], limits: LimitsConfig) -> frozenset[Slot]:
    """Slots that may open a session: not full, and late by less than half of `limits.late_ms`."""
    return frozenset(
        slot
        for slot, load in loads.items()
        if load.sessions < limits.sessions_per_worker and _late_us(load) < limits.late_ms * 500
    )


def _late_us(load: Load) -> int:
    return dict(load.counters).get(microseconds(Seconds.CONTROL_LATE), 0)
