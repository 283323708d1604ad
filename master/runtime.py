"""The directory in which workers find each other's sockets, and a new master its dead predecessor's workers: nobody
else's, one master's at a time, and gone when the server is. Read next: `workers/bus.py` and `master/heir.py`.

    lock          byte 0 is the master's, byte 1 + slot its worker's (`master/locks.py`)
    heirs         where workers without a master give the estate to the next one (`workers/orphan.py`)
    worker-*      the workers' own
"""

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from master.locks import Held, lock_file
from relay.config import LONGEST_RUNTIME_DIRECTORY, Config

HEIRS = "heirs"
_LOCK = "lock"


class DirectoryRefused(Exception):
    """The directory is not safe to use, or another master has it; the text names the key."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """A directory that is ours alone."""

    directory: Path
    lock: int
    """Its file's descriptor. Byte 0 is locked."""
    can_be_found: bool
    """By a server that is started again with the same configuration."""
    is_ours: bool
    """To remove at the end."""


@contextmanager
def runtime_directory(config: Config) -> Iterator[Runtime]:
    """The configured directory, made when missing, or one that the listening addresses name. What we made in it is
    removed at the end. Raises DirectoryRefused.
    """
    directory, is_ours, can_be_found = _claim(config)
    try:
        lock = lock_file(directory / _LOCK)
    except Held as held:
        raise DirectoryRefused(
            f"runtime.directory: {directory} is held by process {held.pid or 'unknown'}: Millrace runs already"
        ) from None
    except OSError as error:
        raise DirectoryRefused(f"runtime.directory: {directory} cannot be written: {error.strerror}") from error
    try:
        yield Runtime(directory, lock, can_be_found, is_ours)
    finally:
        leave(directory, is_ours=is_ours)


def leave(directory: Path, *, is_ours: bool) -> None:
    """Removes what the server had there."""
    remove_sockets(directory)
    # Last, while it is still locked.
    (directory / _LOCK).unlink(missing_ok=True)
    if is_ours:
        with suppress(OSError):
            directory.rmdir()


def remove_sockets(directory: Path) -> None:
    """Removes what a server that was killed has left behind: ours would not bind over it."""
    for path in (*directory.glob("worker-*"), directory / HEIRS):
        if path.is_socket():
            path.unlink(missing_ok=True)


def default_directory(config: Config) -> Path | None:
    """The same for the same listening addresses; None when the kernel is to pick a port."""
    listening = (config.http.bind, config.http.port, config.media.bind, config.media.port, config.admin.port)
    if 0 in (config.http.port, config.media.port, config.admin.port):
        return None
    digest = hashlib.sha256(repr(listening).encode()).hexdigest()[:8]
    path = Path(tempfile.gettempdir(), f"millrace-{os.geteuid()}-{config.http.port}-{digest}")
    return path if LONGEST_RUNTIME_DIRECTORY.accepts(str(path)) else None


def _claim(config: Config) -> tuple[Path, bool, bool]:
    """The directory, whether to remove it at the end, and whether it can be found again."""
    if config.runtime.directory:
        directory = Path(config.runtime.directory).absolute()
        return directory, _make(directory), True
    default = default_directory(config)
    if default is not None:
        # Anybody may make one of that name where everybody may write: then a fresh one has to do.
        with suppress(DirectoryRefused):
            _make(default)
            return default, True, True
    return Path(tempfile.mkdtemp(prefix="millrace-")), True, False


def _make(directory: Path) -> bool:
    """Makes it; False when it was there. Raises DirectoryRefused."""
    is_made = True
    try:
        try:
            directory.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            is_made = False
        found = directory.lstat()
    except OSError as error:
        raise DirectoryRefused(f"runtime.directory: {directory} cannot be made: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise DirectoryRefused(f"runtime.directory: {directory} is no directory")
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        # Whoever can connect to a worker's socket can end any session.
        raise DirectoryRefused(f"runtime.directory: {directory} has to be this user's, with mode 0700")
    return is_made
