"""How this process was started, so that the program now on disk can be started the same way with our descriptors:
beside us as a rehearsal, or in our place. It must never know what the descriptors are. Read next: `master/upgrade.py`.

    arguments, working directory, environment   as they were
    MILLRACE_DESCRIPTORS                        what is left to it: a name for each list of open descriptors
    MILLRACE_REHEARSAL                          set: say whether you could, and end
"""

import ctypes
import json
import os
import signal
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

_DESCRIPTORS, _REHEARSAL = "MILLRACE_DESCRIPTORS", "MILLRACE_REHEARSAL"
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Program:
    """What is started again, and what a former start has left."""

    command: tuple[str, ...]
    """The interpreter and its arguments."""
    directory: Path
    """In which relative paths of the command mean what they did."""
    left: Mapping[str, Sequence[int]] | None
    """By the program in whose place, or for whose rehearsal, we were started."""
    is_rehearsal: bool
    kept: dict[str, Sequence[int]] = field(default_factory=dict)
    """What every later program needs too; whoever opens such a thing puts it here."""

    def become(self, descriptors: Mapping[str, Sequence[int]], environment: Mapping[str, str]) -> None:
        """Goes on as that program: same process, same children, same locks. Returns only by an OSError."""
        left = {**self.kept, **descriptors}
        _pass_on(left, True)
        here = os.getcwd()
        try:
            os.chdir(self.directory)
            os.execve(self.command[0], self.command, {**os.environ, **environment, _DESCRIPTORS: json.dumps(left)})
        finally:
            _pass_on(left, False)
            with suppress(OSError):
                os.chdir(here)

    def rehearse(self, descriptors: Mapping[str, Sequence[int]]) -> int:
        """Starts that program beside us, as a child that says by its exit status how it went. Raises OSError."""
        pid = os.fork()  # noqa: TID251 - no worker: it execs at once
        if pid == 0:
            self._rehearse(descriptors)
        return pid

    def _rehearse(self, descriptors: Mapping[str, Sequence[int]]) -> NoReturn:
        try:
            # Never without us: it would be taken for a server.
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            self.become(descriptors, {_REHEARSAL: "1"})
        except OSError as error:
            print(f"millrace: {self.command[0]} cannot be started: {error.strerror}", file=sys.stderr, flush=True)
        finally:
            os._exit(1)


def this_program(environment: MutableMapping[str, str] = os.environ) -> Program:
    """How we were started. Takes our variables out of the environment: nobody else is meant."""
    text = environment.pop(_DESCRIPTORS, "")
    left = json.loads(text) if text else None
    # What the next program shall have, it is given again.
    _pass_on(left or {}, False)
    return Program(
        command=(sys.executable, *sys.orig_argv[1:]),
        directory=Path.cwd(),
        left=left,
        is_rehearsal=bool(environment.pop(_REHEARSAL, "")),
    )


def _pass_on(descriptors: Mapping[str, Sequence[int]], inheritable: bool) -> None:
    for each in (one for many in descriptors.values() for one in many):
        os.set_inheritable(each, inheritable)
