"""Locks that end with their holder, however it ends, and that say who it is: record locks (fcntl_locking(2)), which a
forked child does not have and which an exec keeps. It must never know what is locked. Read next:
`master/takeover/predecessor.py`.

A process loses all its locks on a file when it closes *any* descriptor of that file: never close one while it lives.
"""

import fcntl
import os
import struct
from contextlib import suppress
from pathlib import Path

_FLOCK = struct.Struct("@hhqqi0q")
"""`struct flock` on 64-bit Linux: type, whence, start, length, process."""


class Held(Exception):
    """Another process has the lock; `pid` is its number, 0 when it is gone by now."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"held by process {pid}")
        self.pid = pid


def lock_file(path: Path, at: int = 0) -> int:
    """Opens the file, made when missing, and locks a byte of it. Raises Held or OSError."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            lock(descriptor, at)
        except Held:
            os.close(descriptor)
            raise
        with suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        # Its holder removed it between our opening and our locking.
        os.close(descriptor)


def lock(descriptor: int, at: int) -> None:
    """Locks one byte. Again is no error. Raises Held."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, at)
    except OSError as error:
        raise Held(holder(descriptor, at) or 0) from error


def holder(descriptor: int, at: int) -> int | None:
    """Which other process has the byte's lock, if any."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, at, 1, 0)
    kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    return None if kind == fcntl.F_UNLCK else pid
