"""Lines on their way out of the process, without ever waiting for who takes them: a pipe that nobody reads, a stopped
terminal, a journal that stands still. Owns what is dropped then, and its count; must never know what a line says. Read
next: `workers/logs.py`, which makes the lines.
"""

import os
import select
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress

_PIECE_BYTES = select.PIPE_BUF
"""A pipe takes as much whole or not at all (pipe(7)), and one that polls as writable has room for it."""


class Outlet:
    """A descriptor that takes what it can at once. Its flags stay: O_NONBLOCK belongs to the open file, which a shell
    or another program may share.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        mode = os.fstat(descriptor).st_mode
        self._is_file = stat.S_ISREG(mode)
        self._waits = not self._is_file and os.get_blocking(descriptor)
        # A copy, as Python would close the descriptor with the socket.
        self._socket = socket.socket(fileno=os.dup(descriptor)) if stat.S_ISSOCK(mode) else None

    def put(self, data: bytes) -> bytes:
        """Returns what was not taken. A part of `data` may be taken, and without an error nothing waits. Raises
        OSError when nothing can be written, as on a full disk.
        """
        if self._is_file:
            # The page cache takes it. A disk that stands still can make us wait, and no flag prevents that.
            return data[os.write(self._descriptor, data) :]
        for piece in _pieces(data):
            with suppress(BlockingIOError):
                taken = self._put(piece)
                data = data[taken:]
                if taken == len(piece):
                    continue
            break
        return data

    def close(self) -> None:
        """Lets go of the descriptor, which stays open."""
        if self._socket is not None:
            self._socket.close()

    def _put(self, piece: bytes) -> int:
        if self._socket is not None:
            return self._socket.send(piece, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        if self._waits:
            poll = select.poll()
            poll.register(self._descriptor, select.POLLOUT)
            if not poll.poll(0):
                return 0
        return os.write(self._descriptor, piece)


class Lines:
    """Writes lines to an outlet and counts those that it did not take. `tell` makes the line that says how many."""

    def __init__(self, outlet: Outlet, tell: Callable[[int], bytes]) -> None:
        self._outlet = outlet
        self._tell = tell
        self._rest = b""
        """What the outlet did not take of the last line that it began."""
        self._untold = 0
        """Lines that were dropped since a line last said so."""
        self._uncounted = 0
        """Lines that were dropped since `newly_dropped` was last asked."""

    def redirect(self, outlet: Outlet) -> None:
        """Goes on with another outlet."""
        self._outlet.close()
        self._outlet, self._rest = outlet, b""

    def write(self, line: bytes) -> None:
        """Writes a line with its end, which may have several lines in it, or drops it."""
        if not self.tell_dropped() or not self._write(line):
            self._untold += 1
            self._uncounted += 1

    def tell_dropped(self) -> bool:
        """Says how many lines were dropped, if any were and a line can be written. False when none can."""
        try:
            if self._rest:
                self._rest = self._outlet.put(self._rest)
        except OSError:
            return False
        if self._rest:
            return False
        if self._untold and self._write(self._tell(self._untold)):
            self._untold = 0
        return not self._untold

    def newly_dropped(self) -> int:
        """Returns how many lines were dropped since the last call."""
        count, self._uncounted = self._uncounted, 0
        return count

    def _write(self, line: bytes) -> bool:
        """False when the line is not taken, or only a part of a line that is longer than a piece."""
        try:
            left = self._outlet.put(line)
        except OSError:
            return False
        if len(left) == len(line):
            return False
        # The rest of what was begun comes first, whenever it can. Of a long traceback what then follows is dropped.
        taken = line[: len(line) - len(left)]
        end = 0 if taken.endswith(b"\n") else left.find(b"\n") + 1
        self._rest = left[:end]
        return end == len(left)


def _pieces(data: bytes) -> Iterator[bytes]:
    while data:
        piece = data[:_PIECE_BYTES]
        # Where a line ends, if one does, so that another process's line can only come between lines.
        piece = piece[: piece.rfind(b"\n") + 1] or piece
        yield piece
        data = data[len(piece) :]
