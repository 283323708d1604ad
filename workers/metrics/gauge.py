"""Measures how a worker stands: how late its loops are, what memory and descriptors are left. It must never decide
what is too much. Read next: `relay/load/pressure.py`, which does.
"""

from millrace.relay.contract.inputs import Measured
from millrace.workers.metrics.processes import descriptors_left, memory_available

ENGINE_PAUSE_SECONDS = 0.15
"""Between two beats of an engine that has nothing to do (`BEAT` in `relay/engine/shell/src/reactor.rs`)."""


class Gauge:
    """Notes each beat of the control loop; `measure` sums up what was noted since."""

    def __init__(self, beat_seconds: float) -> None:
        self._beat_seconds = beat_seconds
        self._beat_at: float | None = None
        self._beats = 0
        self._control_late = 0.0
        self._engine_late = 0.0
        self._late_before = 0.0

    def beat(self, now: float, engine_age: float) -> None:
        """One beat at monotonic `now`, when the engine's last was `engine_age` seconds ago."""
        if self._beat_at is not None:
            self._control_late += max(0.0, now - self._beat_at - self._beat_seconds)
        self._engine_late += max(0.0, engine_age - ENGINE_PAUSE_SECONDS)
        self._beat_at = now
        self._beats += 1

    def control_late(self) -> float:
        """Seconds that a beat was late on average since the last `measure`."""
        return self._control_late / max(1, self._beats)

    def measure(self) -> Measured:
        """Everything since the last one. What cannot be read counts as used up: so it is when descriptors are.

        Lateness is the lesser of the last two: one hiccup, of the machine as a whole perhaps, is no overload.
        """
        now = max(self._control_late, self._engine_late) / max(1, self._beats)
        late, self._late_before = min(now, self._late_before), now
        self._control_late = self._engine_late = 0.0
        self._beats = 0
        try:
            return Measured(late, memory_available(), descriptors_left())
        except OSError:
            return Measured(late, 0, 0)
