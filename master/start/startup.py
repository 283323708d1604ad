"""Who is told how the start went: the person at the terminal, or the process that waits for a daemon's status. It must
never know what starts. Read next: `master/start/daemon.py`.
"""

import os
import sys
from contextlib import suppress

END = b"\0"
"""Behind what is told: the pipe itself stays open in the workers."""


class Startup:
    """In the foreground: the greeting comes as soon as there is one, problems are in the log."""

    def greet(self, text: str) -> None:
        """Where everything is. Workers are only starting."""
        # Nobody has to listen.
        with suppress(OSError):
            sys.stdout.write(text)
            sys.stdout.flush()

    def succeeded(self) -> None:
        """All workers serve."""

    def failed(self, why: str) -> None:
        """There is no server. Of several reasons, the first counts."""


class DaemonStartup(Startup):
    """Says it through a pipe, once: `+` and the greeting, or `-` and the reason, and `END`."""

    def __init__(self, pipe: int) -> None:
        self._pipe: int | None = pipe
        self._greeting = ""

    def greet(self, text: str) -> None:
        """Kept until it is true."""
        self._greeting = text

    def succeeded(self) -> None:
        """Lets the waiting process go."""
        self._tell(f"+{self._greeting}")

    def failed(self, why: str) -> None:
        """Lets it go, with a failure."""
        self._tell(f"-{why}")

    def _tell(self, text: str) -> None:
        if self._pipe is not None:
            with suppress(OSError):
                os.write(self._pipe, text.encode() + END)
            os.close(self._pipe)
            self._pipe = None


class LaterStartup(Startup):
    """In the place of a program that has greeted already."""

    def greet(self, text: str) -> None:
        """Nobody waits for it."""


class QuietStartup(Startup):
    """In the foreground with a log file: the person at the terminal still learns why there is no server."""

    def failed(self, why: str) -> None:
        """To standard error."""
        with suppress(OSError):
            print(f"millrace: {why}", file=sys.stderr)
