"""The one `os.fork` that makes a worker. The child resets its signals, locks its slot, pins itself to its core and
becomes a worker. It must never return into the master's code. Read next: `workers/main.py`, where it goes on.
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
    """What a child is given."""

    boot: Boot
    core: int | None
    """The core to be pinned to; None for any."""
    lock: int
    """The descriptor of the runtime directory's lock file. Byte 1 + slot is locked by the slot's worker."""


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
        # The master ends a worker that hangs with SIGABRT, which then writes a traceback, also during imports.
        faulthandler.enable()
        _claim_slot(child, parent)
        if child.core is not None:
            _pin(child.core)
        # The master has imported it, unless the start was in a hurry. Here, so that an import that failed there is this
        # worker's failed boot and not the master's end.
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
    # A write to a closed connection is then an error of that write, and does not end the process.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    # A terminal sends its signals to the whole foreground group. The master alone decides what follows from them.
    for each in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(each, signal.SIG_IGN)
    # The master has its signals blocked, and a fork inherits that.
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _pin(core: int) -> None:
    try:
        os.sched_setaffinity(0, {core})
    except OSError as error:
        # The core was taken from us or from the machine since the start. An unpinned worker is better than none.
        log.warning("worker not pinned: core %s is not available: %s", core, error.strerror)


def _claim_slot(child: Child, parent: int) -> None:
    """Locks the slot, so that it never has two workers, of whatever master: both would send under the same SRTP
    indexes.
    """
    lock(child.lock, 1 + child.boot.slot)
    if os.getppid() != parent:
        # The master died during the fork, and its successor may have missed our lock. Exit rather than run unseen.
        os._exit(Exit.STOPPED)
    # Ends a worker that hangs before its loop looks for the master. A living master is quicker.
    signal.alarm(2 * child.boot.config.workers.boot_seconds)
