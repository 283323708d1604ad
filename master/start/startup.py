"""Where the start's outcome is shown: at the terminal, or to the process that waits for a daemon. It must never know
what starts. Read next: `master/start/daemon.py`, which waits.
"""

import os
import sys
from contextlib import suppress

END = b"\0"
"""Ends the message, as the pipe's end does not: workers hold the pipe open."""


class Startup:
    """In the foreground: the banner is shown as soon as there is one, and problems are in the log."""

    def show_banner(self, text: str) -> None:
        """Shows where everything is. Workers are only starting by then."""
        # Standard output may be closed.
        with suppress(OSError):
            sys.stdout.write(text)
            sys.stdout.flush()

    def succeeded(self) -> None:
        """Notes that all workers serve."""

    def failed(self, why: str) -> None:
        """Notes that there is no server. Of several calls, the first counts."""


class DaemonStartup(Startup):
    """Writes the outcome to a pipe, once: `+` and the banner, or `-` and the reason, and `END`."""

    def __init__(self, pipe: int) -> None:
        self._pipe: int | None = pipe
        self._banner = ""
        self._why = ""

    def show_banner(self, text: str) -> None:
        """Holds the banner back until all workers serve."""
        self._banner = text

    def succeeded(self) -> None:
        """Ends the wait with the banner."""
        self._tell(f"+{self._banner}")

    def failed(self, why: str) -> None:
        """Holds the first reason back until the daemon has released its pid file and its ports."""
        self._why = self._why or why

    def ended(self) -> None:
        """Ends the wait with the reason of the failure, unless `succeeded` has ended it."""
        self._tell(f"-{self._why}")

    def _tell(self, text: str) -> None:
        if self._pipe is not None:
            with suppress(OSError):
                os.write(self._pipe, text.encode() + END)
            os.close(self._pipe)
            self._pipe = None


class LaterStartup(Startup):
    """In the place of a program that has shown its banner already."""

    def show_banner(self, text: str) -> None:
        """Shows nothing."""


class QuietStartup(Startup):
    """In the foreground with a log file: why there is no server is shown at the terminal, too."""

    def failed(self, why: str) -> None:
        """Writes the reason to standard error."""
        with suppress(OSError):
            print(f"millrace: {why}", file=sys.stderr)
