"""Record locks (fcntl_locking(2)): each ends with its process, however that ends, and the kernel names its holder. A
forked child does not have its parent's locks, and an exec keeps them. It must never know what is locked. Read next:
`master/takeover/predecessor.py`, which finds workers by their locks.

A process loses all its locks on a file when it closes *any* descriptor of that file. So close none before the end.
"""

import fcntl
import os
import struct
from contextlib import suppress
from pathlib import Path

from millrace.workers.trusted_files import open_trusted

_FLOCK = struct.Struct("@hhqqi0q")
"""`struct flock` on 64-bit Linux: type, whence, start, length, process id."""


class Held(Exception):
    """Another process has the lock; `pid` is its process id, 0 when it is gone by now."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"held by process {pid}")
        self.pid = pid


def lock_file(path: Path, at: int = 0) -> int:
    """Opens the file, made when missing, and locks a byte of it. Raises Held or OSError."""
    while True:
        descriptor = open_trusted(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            lock(descriptor, at)
        except Held:
            os.close(descriptor)
            raise
        with suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        # Its last holder removed the file after we opened it and before we locked it: make it again.
        os.close(descriptor)


def lock(descriptor: int, at: int) -> None:
    """Locks one byte; a byte that this process has locked stays locked. Raises Held."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, at)
    except OSError as error:
        raise Held(holder(descriptor, at) or 0) from error


def holder(descriptor: int, at: int) -> int | None:
    """Returns the id of the other process that has locked the byte; None when no other has."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, at, 1, 0)
    kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    return None if kind == fcntl.F_UNLCK else pid
