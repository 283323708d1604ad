"""The control plane's turn on the core that it shares with its engine. It must never take a priority that others on
the box would feel. Read next: `relay/engine/shell/src/scheduling.rs`, the other half.
"""

import os
from contextlib import suppress

NICE = 5
"""A third of the engine's weight: a burst that takes longer than its thread's share goes on all the same."""


def stand_back() -> None:
    """Has this thread, and those that it starts later, wait for the engine's to sleep. Whoever chose another policy for
    the server knows why, and a sandbox may refuse: then all stays as it is.
    """
    if os.sched_getscheduler(0) == os.SCHED_OTHER:
        with suppress(OSError):
            # Waking up, a batch thread interrupts nobody.
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
            os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) + NICE)
