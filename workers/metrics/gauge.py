"""Measures the load of a worker: how late its loops are, how much memory and how many descriptors are left. It must
never decide what is too much. Read next: `relay/load/pressure.py`, which does.
"""

from millrace.relay.contract.inputs import Measured
from millrace.workers.metrics.processes import descriptors_left, memory_available

ENGINE_PAUSE_SECONDS = 0.15
"""The longest time between two beats of an engine that is not late (`BEAT` in `relay/engine/shell/src/reactor.rs`)."""


class Gauge:
    """Notes each beat of the control loop; `measure` returns the averages since its last call."""

    def __init__(self, beat_seconds: float) -> None:
        self._beat_seconds = beat_seconds
        self._beat_at: float | None = None
        self._beats = 0
        self._control_late = 0.0
        self._engine_late = 0.0
        self._late_before = 0.0

    def beat(self, now: float, engine_age: float) -> None:
        """Notes one beat at monotonic `now`, when the engine's last beat was `engine_age` seconds ago."""
        if self._beat_at is not None:
            self._control_late += max(0.0, now - self._beat_at - self._beat_seconds)
        self._engine_late += max(0.0, engine_age - ENGINE_PAUSE_SECONDS)
        self._beat_at = now
        self._beats += 1

    def control_late(self) -> float:
        """Returns by how many seconds a beat was late, on average since the last `measure`."""
        return self._control_late / max(1, self._beats)

    def measure(self) -> Measured:
        """Returns the load since the last call. Memory and descriptors that cannot be read count as used up, as reading
        fails when no descriptor is left.

        Lateness is the lesser of the last two measurements: one pause, perhaps of the whole machine, is no overload.
        """
        now = max(self._control_late, self._engine_late) / max(1, self._beats)
        late, self._late_before = min(now, self._late_before), now
        self._control_late = self._engine_late = 0.0
        self._beats = 0
        try:
            return Measured(late, memory_available(), descriptors_left())
        except OSError:
            return Measured(late, 0, 0)
