"""The directory in which workers find each other's sockets: nobody else's, and gone when the server is. Read next:
`workers/bus.py`, which uses it.
"""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class DirectoryRefused(Exception):
    """The configured directory is not safe to use; the text names the key."""


@contextmanager
def runtime_directory(configured: str) -> Iterator[Path]:
    """The configured directory, made when missing, or a fresh one. What we made in it is removed at the end."""
    directory, is_ours = _claim(configured)
    try:
        # A server that was killed has left its own behind, and ours would not bind over them.
        _remove_sockets(directory)
        yield directory
    finally:
        _remove_sockets(directory)
        if is_ours:
            with suppress(OSError):
                directory.rmdir()


def _claim(configured: str) -> tuple[Path, bool]:
    if not configured:
        return Path(tempfile.mkdtemp(prefix="millrace-")), True
    directory = Path(configured).absolute()
    try:
        try:
            directory.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            is_ours = False
        else:
            is_ours = True
        found = directory.lstat()
    except OSError as error:
        raise DirectoryRefused(f"runtime.directory: {directory} cannot be made: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise DirectoryRefused(f"runtime.directory: {directory} is no directory")
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        # Whoever can connect to a worker's socket can end any session.
        raise DirectoryRefused(f"runtime.directory: {directory} has to be this user's, with mode 0700")
    return directory, is_ours


def _remove_sockets(directory: Path) -> None:
    for path in directory.glob("worker-*"):
        if path.is_socket():
            path.unlink(missing_ok=True)
