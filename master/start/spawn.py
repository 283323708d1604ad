"""The one `os.fork`. The child gets signals of its own, the lock of its slot and its core, and becomes a worker; it
never returns into the master's code. Read next: `workers/main.py`.
"""

import faulthandler
import logging
import os
import signal
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from millrace.master.takeover.locks import lock
from millrace.relay.contract.boot import Boot
from millrace.relay.contract.exits import Exit

log = logging.getLogger("millrace.master")


@dataclass(frozen=True, slots=True)
class Child:
    """What a child does before it becomes a worker."""

    boot: Boot
    core: int | None
    """To be pinned to."""
    lock: int
    """The runtime directory's: byte 1 + slot is whose the slot is."""


def spawn(child: Child) -> int:
    """Forks a worker and returns its process id. Raises OSError."""
    flush()
    parent = os.getpid()
    pid = os.fork()  # noqa: TID251
    if pid == 0:
        _become(child, parent)
    return pid


def flush() -> None:
    """Writes out what is buffered: call it before a fork, which would write it twice, and before an exec, which would
    lose it. A failed write is ignored: the reader may be gone, or a disk full, and no client's call ends for that.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()


def _become(child: Child, parent: int) -> NoReturn:
    code: int = Exit.BOOT_FAILED
    try:
        _detach()
        # SIGABRT from the master ends a hanging worker with a traceback, be it at its imports.
        faulthandler.enable()
        _claim_slot(child, parent)
        if child.core is not None:
            _pin(child.core)
        # Only now: an import that fails is this worker's failed boot and not the master's end.
        from millrace.workers.main import run

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


def _detach() -> None:
    for each in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(each, signal.SIG_DFL)
    # A client that is gone is an error of one write, and not the end of the process.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    # A terminal signals its keys and its own end to the whole foreground group; the master alone says what follows.
    for each in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(each, signal.SIG_IGN)
    # The master waits with its signals blocked, which a fork inherits.
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _pin(core: int) -> None:
    try:
        os.sched_setaffinity(0, {core})
    except OSError as error:
        # Taken from us since the start, or from the machine: no reason to have no worker.
        log.warning("core %s cannot be had, and a worker runs on any: %s", core, error.strerror)


def _claim_slot(child: Child, parent: int) -> None:
    """Never two workers in a slot, whoever forked them: both would send under the same packet indexes."""
    lock(child.lock, 1 + child.boot.slot)
    if os.getppid() != parent:
        # It died, and who comes next may not have seen us: from now on it would.
        os._exit(Exit.STOPPED)
    # Until its loop runs and looks by itself. The master is quicker, if there is one.
    signal.alarm(2 * child.boot.config.workers.boot_seconds)
