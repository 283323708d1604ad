"""One slot: the worker that lives in it or is to live in it, and how its last one died. Holds facts only; must never
decide what follows from them. Read next: `master/slots.py`, which does.
"""

import math
import signal
from dataclasses import dataclass

from millrace.relay.contract.exits import Exit
from millrace.relay.contract.layout import SlotState


@dataclass(slots=True)
class Life:
    """One slot: the worker that lives in it, or when the next one is due."""

    slot: int
    incarnation: int = 0
    state: SlotState = SlotState.EMPTY
    pid: int = 0
    """0 while the slot has no worker."""
    born_at: float = 0.0
    due_at: float = 0.0
    """When to fork, while the slot has no worker."""
    silent_at: float = math.inf
    """When the older of a running worker's two beats will be too old; infinity when not known."""
    away_since: float = math.inf
    """Since when the slot has no worker that serves; infinity while it has one, and before its first."""
    is_down: bool = False
    """True when it has been without one for longer than a moment, while others serve."""
    kill_at: float | None = None
    """When to send SIGKILL to a worker that was told to end; None when it was not."""
    quick_deaths: int = 0
    """How many workers in a row died soon after their start."""
    crashes: int = 0
    """How many of the quick deaths were crashes: neither SIGKILL, which another process sends, nor a failed boot."""
    failed_forks: int = 0
    """How many forks in a row failed."""
    serves: bool = False
    """True when the present worker, else the last one, has served."""
    has_served: bool = False
    """True when a worker has served since the slot was empty: only then can it hold sessions."""
    is_wanted: bool = True
    """True when the slot is to have a worker for good. A worker in a slot that is not wanted is about to leave."""
    joins: bool = False
    """True when the slot was added and has not served since: nothing is lost when it is given up."""

    @property
    def is_needed(self) -> bool:
        """True when the slot has a worker or will have one."""
        return bool(self.pid) or self.is_wanted or self.has_served


@dataclass(frozen=True, slots=True)
class Death:
    """How a worker ended, and what follows from it."""

    slot: int
    pid: int
    incarnation: int
    how: str
    was_asked: bool
    was_replaced: bool
    """True when it left its sessions to a successor, as it was asked to."""
    gives_up: str | None
    """Why this slot gets no worker any more; None when it gets one."""
    is_fatal: bool
    """True when the server stops for it."""
    loops: str | None
    """What is wrong with a slot that is retried over and over, as other workers serve; None when nothing is."""


def describe(code: int) -> str:
    """Returns an exit code, negative for a signal, in words."""
    if code < 0:
        try:
            return f"was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"was ended by signal {-code}"
    words = {
        Exit.STOPPED: "stopped",
        Exit.BOOT_FAILED: "could not start",
        Exit.RELEASED: "released its sessions",
        Exit.RETIRED: "left its slot empty",
    }
    try:
        return words.get(Exit(code), Exit(code).name.lower())
    except ValueError:
        return f"ended with status {code}"
