"""How this process was started, so that the program now on disk can be started the same way with our descriptors:
beside us as a rehearsal, or in our place. It must never know what the descriptors are. Read next: `master/upgrade.py`,
which says when.

    arguments, working directory, environment   as they were
    MILLRACE_DESCRIPTORS                        what is passed to it: lists of open descriptors by name, as JSON
    MILLRACE_REHEARSAL                          set when it is to say whether it could go on, and end
"""

import ctypes
import json
import os
import signal
import sys
from collections.abc import Container, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

_DESCRIPTORS, _REHEARSAL = "MILLRACE_DESCRIPTORS", "MILLRACE_REHEARSAL"
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Executable:
    """What is started again, and which descriptors were passed to this process."""

    command: tuple[str, ...]
    """The interpreter and its arguments."""
    directory: Path
    """Where the command's relative paths start."""
    passed: Mapping[str, Sequence[int]] | None
    """Descriptors by name, from the program in whose place, or for whose rehearsal, we were started; None without one.
    """
    is_rehearsal: bool
    always_passed: dict[str, Sequence[int]] = field(default_factory=dict)
    """What is passed to every later program, too; code that opens such a thing puts it here."""

    def pass_on_all_but(self, known: Container[str]) -> None:
        """Passes on descriptors whose names only another release knows, which has them again if it comes back."""
        self.always_passed.update({name: each for name, each in (self.passed or {}).items() if name not in known})

    def become(self, descriptors: Mapping[str, Sequence[int]], environment: Mapping[str, str]) -> None:
        """Replaces this program with that one: same process, same children, same locks. Returns only by an OSError."""
        passed = {**self.always_passed, **descriptors}
        _set_inheritable(passed, True)
        # A descriptor, as the directory may have been replaced since, and then has no name.
        here = os.open(".", os.O_PATH | os.O_CLOEXEC)
        try:
            os.chdir(self.directory)
            os.execve(self.command[0], self.command, {**os.environ, **environment, _DESCRIPTORS: json.dumps(passed)})
        finally:
            _set_inheritable(passed, False)
            with suppress(OSError):
                os.fchdir(here)
            os.close(here)

    def rehearse(self, descriptors: Mapping[str, Sequence[int]]) -> int:
        """Starts that program beside us, and returns its process id; its exit status says whether it could go on.
        Raises OSError.
        """
        pid = os.fork()  # noqa: TID251 - no worker: it execs at once
        if pid == 0:
            self._rehearse(descriptors)
        return pid

    def _rehearse(self, descriptors: Mapping[str, Sequence[int]]) -> NoReturn:
        try:
            # It ends with us, as nothing would end it later.
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            self.become(descriptors, {_REHEARSAL: "1"})
        except OSError as error:
            print(f"millrace: {self.command[0]} cannot be started: {error.strerror}", file=sys.stderr, flush=True)
        finally:
            os._exit(1)


def this_executable(environment: MutableMapping[str, str] = os.environ) -> Executable:
    """Returns how we were started. Takes our variables out of the environment, as they are for no child of ours."""
    text = environment.pop(_DESCRIPTORS, "")
    passed = json.loads(text) if text else None
    # What the next program is to have, `become` passes again.
    _set_inheritable(passed or {}, False)
    return Executable(
        command=(sys.executable, *sys.orig_argv[1:]),
        directory=Path.cwd(),
        passed=passed,
        is_rehearsal=bool(environment.pop(_REHEARSAL, "")),
    )


def _set_inheritable(descriptors: Mapping[str, Sequence[int]], inheritable: bool) -> None:
    for each in (one for many in descriptors.values() for one in many):
        os.set_inheritable(each, inheritable)
