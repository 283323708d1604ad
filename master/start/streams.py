"""The server's standard streams: open, and never waited for. It must never change a flag of an open file that others
have, too. Read next: `workers/lines.py`, which writes the log.
"""

import os
import stat
import sys
from contextlib import suppress

_STREAMS = ("stdin", "stdout", "stderr")


def open_streams() -> None:
    """Opens those that the caller has closed (`>&-`) on /dev/null. Else a socket of ours would get such a number, and
    tracebacks would go to clients.
    """
    for descriptor, name in enumerate(_STREAMS):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            # Inheritable, for the program of an upgrade.
            os.dup2(opened, descriptor)
            os.set_inheritable(descriptor, True)
            if opened != descriptor:
                os.close(opened)
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, "w" if descriptor else "r", closefd=False))  # noqa: SIM115


def stop_waiting() -> None:
    """Lets no write to standard output or error wait for a reader: of ours, of Python's tracebacks, of the engine's.
    A pipe or a terminal is opened anew for that, as O_NONBLOCK belongs to the open file, which the shell has, too.
    What cannot be opened anew (a socket, another user's pipe) stays as it is; `workers/lines.py` does not wait for it.
    """
    for descriptor in (1, 2):
        can_wait = stat.S_ISFIFO(os.fstat(descriptor).st_mode) or os.isatty(descriptor)
        if not can_wait or not os.get_blocking(descriptor):
            continue
        with suppress(OSError):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY
            opened = os.open(f"/proc/self/fd/{descriptor}", flags)
            os.dup2(opened, descriptor)
            os.close(opened)
