"""The one `os.fork`. The child gets default signals, dies with its parent, sits on its core and becomes a worker; it
never returns into the master's code. Read next: `workers/main.py`.
"""

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from relay.boot import Boot
from relay.exits import Exit

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Child:
    """What a child does before it becomes a worker."""

    boot: Boot
    core: int | None
    """To be pinned to."""
    close_others: Callable[[], None]
    """Closes what other slots serve. The master's own descriptors stay open in the master."""


def spawn(child: Child) -> int:
    """Forks a worker and returns its process id."""
    # What is buffered would be written twice.
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(child, parent)
    return pid


def _become(child: Child, parent: int) -> NoReturn:
    code: int = Exit.BOOT_FAILED
    try:
        _detach(parent)
        if child.core is not None:
            os.sched_setaffinity(0, {child.core})
        child.close_others()
        # Only now: an import that fails is this worker's failed boot and not the master's end.
        from workers.main import run

        code = Exit.CRASHED
        code = run(child.boot)
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else Exit.CRASHED
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def _detach(parent: int) -> None:
    for each in (signal.SIGTERM, signal.SIGPIPE, signal.SIGCHLD):
        signal.signal(each, signal.SIG_DFL)
    # A terminal signals its keys and its own end to the whole foreground group; the master alone says what follows.
    for each in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(each, signal.SIG_IGN)
    # SIGTERM, so that a worker whose master was killed still says goodbye to its clients.
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    if os.getppid() != parent:
        # The parent died before it was asked to be told.
        os._exit(Exit.STOPPED)
