"""How the control plane is scheduled on the core that it shares with its engine. It must never raise a priority, which
other programs of the box would feel. Read next: `relay/engine/shell/src/scheduling.rs`, the engine's half.
"""

import os
from contextlib import suppress

NICE = 5
"""Added to the niceness. 5 gives a third of the engine's weight: when a burst takes the engine longer than its share,
the kernel lets it go on all the same.
"""


def lower_priority() -> None:
    """Has this thread, and those that it starts later, run when the engine's thread sleeps. Changes nothing when an
    operator chose another scheduling policy, or when a sandbox refuses.
    """
    if os.sched_getscheduler(0) == os.SCHED_OTHER:
        with suppress(OSError):
            # A SCHED_BATCH thread that wakes up preempts no other thread.
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
            os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) + NICE)
