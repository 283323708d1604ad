"""Becomes a daemon the classic way (daemon(7)), before anything is bound, and holds the pid file. It must never know
what runs as the daemon. Read next: `master/start/startup.py`, which carries the daemon's status to the process that
waits.

    caller --fork--> leader --setsid, fork--> daemon: / , umask, streams, pid file, run
       |               ends at once              |
       +-- waits for the pipe: `+banner`, `-reason`, or its end
"""

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from millrace.master.start.startup import END, DaemonStartup, Startup
from millrace.master.takeover.locks import Held, lock_file
from millrace.master.takeover.reexec import Executable
from millrace.workers.trusted_files import open_log

PID_FILE = "pid-file"
"""The name of its descriptor between an old and a new program."""
UMASK = 0o027
"""Other users may read no log with participants' names."""


class PidFileRefused(Exception):
    """Another server holds the pid file, or it cannot be written."""


def launch(log_file: str, run: Callable[[Startup], int]) -> int:
    """Runs `run` as a daemon. Returns in the caller: 0 when the daemon serves, 1 when it has failed."""
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    leader = os.fork()  # noqa: TID251 - no worker: nothing is open or locked yet
    if leader == 0:
        os.close(reading)
        _lead(log_file, run, DaemonStartup(writing))
    os.close(writing)
    os.waitpid(leader, 0)
    status = _read_status(reading)
    if status.startswith("+"):
        print(status[1:], end="")
        return 0
    print(f"millrace: {status[1:] or 'the daemon ended and gave no reason'}", file=sys.stderr)
    return 1


def _read_status(pipe: int) -> str:
    status = b""
    while not status.endswith(END) and (more := os.read(pipe, 4096)):
        status += more
    os.close(pipe)
    return status.removesuffix(END).decode()


def _lead(log_file: str, run: Callable[[Startup], int], startup: DaemonStartup) -> None:
    status = 1
    try:
        os.setsid()
        # The second fork: a process that leads no session never gets a terminal.
        if os.fork():  # noqa: TID251 - as above
            os._exit(0)
        os.chdir("/")
        os.umask(UMASK)
        _redirect(log_file)
        status = run(startup)
    except (PidFileRefused, OSError) as refusal:
        startup.failed(str(refusal))
    except BaseException:
        traceback.print_exc()
    finally:
        startup.failed("the daemon ended before it was ready" + (f"; see {log_file}" if log_file else ""))
        startup.ended()
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _redirect(log_file: str) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    # Standard error goes to the log file: the traceback of a worker that hung is written there, not logged.
    out = open_log(log_file) if log_file else nothing
    os.dup2(nothing, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    for opened in {nothing, out} - {0, 1, 2}:
        os.close(opened)


@contextmanager
def held(path: Path | None, executable: Executable) -> Iterator[None]:
    """Holds the pid file, with our process id in it, while the body runs. Raises PidFileRefused."""
    if path is None:
        yield
        return
    # A program that was this process before has locked it already, with the same process id in it.
    passed = (executable.passed or {}).get(PID_FILE)
    try:
        (descriptor,) = passed or (lock_file(path),)
        if not passed:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except Held as held_by:
        raise PidFileRefused(f"{path} is held by process {held_by.pid or 'unknown'}: Millrace runs already") from None
    except OSError as error:
        raise PidFileRefused(f"{path} cannot be written: {error.strerror}") from error
    executable.always_passed[PID_FILE] = (descriptor,)
    try:
        yield
    finally:
        # Before the lock ends, so that another server's file is never removed.
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)
