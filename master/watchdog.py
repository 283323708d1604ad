"""Which worker is to be ended, since it is silent, has not started, or has not ended when it was told to. Is told the
time and every beat, and must never end a worker by itself. Read next: `master/slots.py`, which says when one is forked
again.
"""

import logging
import math
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from millrace.master.life import Life
from millrace.relay.config.model import WorkersConfig
from millrace.relay.contract.layout import SlotState

log = logging.getLogger("millrace.master")


@dataclass(frozen=True, slots=True)
class Beats:
    """When each loop of a worker last beat, seconds on the monotonic clock; 0 for never."""

    engine_at: float
    control_at: float


@dataclass(frozen=True, slots=True)
class Kill:
    """A signal to send, and why."""

    slot: int
    pid: int
    signal: signal.Signals
    reason: str


class Watchdog:
    """Watches all workers. Times are seconds on the monotonic clock."""

    def __init__(self, config: WorkersConfig) -> None:
        self.config = config
        self._watched_at: float | None = None
        self._resumed_at = -math.inf
        """When we last noticed that we, and so perhaps the whole machine, had stood still."""

    def watch(self, lives: Sequence[Life], beats: Sequence[Beats], now: float) -> list[Kill]:
        """Reads every worker's beats: notes which workers serve by now, and returns what has to be killed."""
        if self._watched_at is not None and now - self._watched_at > self.config.beat_seconds / 2:
            self._resume(lives, now - self._watched_at, now)
        self._watched_at = now
        return [kill for life in lives if life.pid and (kill := self._watch(life, beats[life.slot], now))]

    def _resume(self, lives: Sequence[Life], stood_seconds: float, now: float) -> None:
        """Forgives everybody the time for which we stood still: a frozen group of processes, a stopped job, a virtual
        machine that was moved. Whoever was thawed after us has as long to beat as anybody.
        """
        log.warning("the master stood still, and perhaps the machine", extra={"seconds": round(stood_seconds, 1)})
        self._resumed_at = now
        for life in lives:
            life.silent_at = math.inf
            if life.state is SlotState.STARTING:
                life.born_at += stood_seconds
            if life.kill_at is not None:
                life.kill_at += stood_seconds

    def _watch(self, life: Life, beats: Beats, now: float) -> Kill | None:
        if life.state is SlotState.RELEASING and self._is_silent(beats.engine_at, now):
            # An engine beats until its process ends, as its clients have no other.
            return self._abort(life, now, f"its engine has been silent for {now - beats.engine_at:.1f} s")
        if life.state in (SlotState.STOPPING, SlotState.RELEASING):
            return _overdue(life, now)
        if life.state is SlotState.STARTING:
            # Beats of the slot's last worker are older than the fork.
            if min(beats.engine_at, beats.control_at) >= life.born_at:
                life.state, life.serves, life.has_served, life.joins = SlotState.RUNNING, True, True, False
                life.away_since = math.inf
            elif now - life.born_at > self.config.boot_seconds:
                return self._abort(life, now, f"it has not started within {self.config.boot_seconds} s")
            elif beats.engine_at >= life.born_at and self._is_silent(beats.engine_at, now):
                # An engine beats from its start, as the clients that it adopted have no other.
                return self._abort(life, now, f"its engine has been silent for {now - beats.engine_at:.1f} s")
            return None
        for loop, at in (("engine", beats.engine_at), ("control loop", beats.control_at)):
            if self._is_silent(at, now):
                return self._abort(life, now, f"its {loop} has been silent for {now - at:.1f} s")
        life.silent_at = max(self._resumed_at, min(beats.engine_at, beats.control_at)) + self.config.beat_seconds
        return None

    def _is_silent(self, beat_at: float, now: float) -> bool:
        return now >= max(beat_at, self._resumed_at) + self.config.beat_seconds

    def _abort(self, life: Life, now: float, reason: str) -> Kill:
        life.away_since = min(life.away_since, now)
        return end(life, signal.SIGABRT, now + self.config.abort_seconds, reason)


def end(life: Life, first: signal.Signals, kill_at: float, reason: str) -> Kill:
    """Notes that the worker is told to end. After `kill_at` it is killed."""
    life.state, life.kill_at = SlotState.STOPPING, kill_at
    return Kill(life.slot, life.pid, first, reason)


def _overdue(life: Life, now: float) -> Kill | None:
    if not life.pid or life.kill_at is None or now < life.kill_at:
        return None
    life.kill_at = None
    return Kill(life.slot, life.pid, signal.SIGKILL, "it did not end when it was told to")
