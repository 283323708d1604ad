"""Becomes a daemon the classic way (daemon(7)), before anything is bound, and holds the pid file. It must never know
what runs as the daemon. Read next: `master/start/startup.py`, which carries the daemon's status to the process that
waits.

    caller --fork--> leader --setsid, fork--> daemon: / , umask, streams, pid file, run
       |               ends at once              |
       +-- waits for the pipe: `+greeting`, `-reason`, or its end
"""

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from millrace.master.start.startup import END, DaemonStartup, Startup
from millrace.master.takeover.locks import Held, lock_file
from millrace.master.takeover.reexec import Program

PID_FILE = "pid-file"
UMASK = 0o027
"""Others have no business in a log with participants' names."""


class PidFileRefused(Exception):
    """Another server holds the pid file, or it cannot be written."""


def launch(log_file: str, run: Callable[[Startup], int]) -> int:
    """Runs `run` as a daemon. Returns in the caller, when the daemon serves (0) or has failed (1)."""
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    leader = os.fork()  # noqa: TID251 - no worker: nothing is open or locked yet
    if leader == 0:
        os.close(reading)
        _lead(log_file, run, DaemonStartup(writing))
    os.close(writing)
    os.waitpid(leader, 0)
    told = _told(reading)
    if told.startswith("+"):
        print(told[1:], end="")
        return 0
    print(f"millrace: {told[1:] or 'the daemon ended without a word'}", file=sys.stderr)
    return 1


def _told(pipe: int) -> str:
    told = b""
    while not told.endswith(END) and (more := os.read(pipe, 4096)):
        told += more
    os.close(pipe)
    return told.removesuffix(END).decode()


def _lead(log_file: str, run: Callable[[Startup], int], startup: DaemonStartup) -> None:
    status = 1
    try:
        os.setsid()
        # Not being its session's leader, the daemon can never get a terminal again.
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
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _redirect(log_file: str) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    # What is not logged but written, such as the traceback of a worker that hung, belongs into the log too.
    out = os.open(log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640) if log_file else nothing
    os.dup2(nothing, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    for opened in {nothing, out} - {0, 1, 2}:
        os.close(opened)


@contextmanager
def held(path: Path | None, program: Program) -> Iterator[None]:
    """Keeps the pid file, with our number in it, while the body runs. Raises PidFileRefused if another has it."""
    if path is None:
        yield
        return
    # A program before us in this process has locked it for us, with the same number in it.
    left = (program.left or {}).get(PID_FILE)
    try:
        (descriptor,) = left or (lock_file(path),)
        if not left:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except Held as held_by:
        raise PidFileRefused(f"{path} is held by process {held_by.pid or 'unknown'}: Millrace runs already") from None
    except OSError as error:
        raise PidFileRefused(f"{path} cannot be written: {error.strerror}") from error
    program.kept[PID_FILE] = (descriptor,)
    try:
        yield
    finally:
        # While it is still locked: nobody else's can be removed.
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)
