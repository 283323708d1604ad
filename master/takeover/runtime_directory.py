"""The directory in which workers find each other's sockets, and a new master its dead predecessor's workers: nobody
else's, one master's at a time, and gone when the server is. It must never be one that another user can enter, who could
end any session then. Read next: `workers/bus.py` and `master/takeover/predecessor.py`.

    lock          byte 0 is the master's, byte 1 + slot its worker's (`master/takeover/locks.py`)
    heirs         where workers without a master give all that is inherited to the next (`workers/orphan.py`)
    worker-*      the workers' own
"""

import hashlib
import os
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from millrace.master.takeover.locks import Held, holder, lock_file
from millrace.relay.config.model import LONGEST_RUNTIME_DIRECTORY, Config
from millrace.relay.config.rules import MAX_SLOTS

TAKEOVER_SOCKET = "heirs"
"""A name that masters of before know, too."""
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


def claim(config: Config, left: Path | None = None) -> Runtime:
    """The directory `left` by the last master, else the configured one or one that the listening addresses name; made
    when missing, and locked. Raises DirectoryRefused.
    """
    directory, is_ours, can_be_found = (left, _make(left), True) if left else _chosen(config)
    try:
        lock = lock_file(directory / _LOCK)
    except Held as held:
        raise DirectoryRefused(
            f"runtime.directory: {directory} is held by process {held.pid or 'unknown'}: Millrace runs already"
        ) from None
    except OSError as error:
        raise DirectoryRefused(f"runtime.directory: {directory} cannot be written: {error.strerror}") from error
    return Runtime(directory, lock, can_be_found, is_ours)


def find(config: Config) -> int | None:
    """The process of the master that runs with this configuration on this machine, if one does."""
    directory = Path(config.runtime.directory) if config.runtime.directory else default_directory(config)
    if directory is None:
        return None
    try:
        lock = os.open(directory / _LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return holder(lock, 0)
    finally:
        os.close(lock)


def unusable(directory: Path) -> str | None:
    """Why `claim` would refuse it, as far as can be told without making it. Root may ask for another user's server."""
    try:
        found = directory.lstat()
    except FileNotFoundError:
        above = next(folder for folder in directory.absolute().parents if folder.exists())
        may = above.is_dir() and os.access(above, os.W_OK | os.X_OK)
        return None if may else f"runtime.directory: {directory} cannot be made in {above}"
    except OSError as error:
        return f"runtime.directory: {directory} cannot be made: {error.strerror}"
    return _unsafe(directory, found, os.geteuid() or found.st_uid)


def leave(runtime: Runtime) -> None:
    """Removes what we had there, unless workers without a master live on, for whom another one may come."""
    if living(runtime.lock):
        return
    remove_sockets(runtime.directory)
    # Last, while it is still locked.
    (runtime.directory / _LOCK).unlink(missing_ok=True)
    if runtime.is_ours:
        with suppress(OSError):
            runtime.directory.rmdir()


def living(lock: int) -> list[int]:
    """Slots in which another process lives."""
    return [slot for slot in range(MAX_SLOTS) if holder(lock, 1 + slot) is not None]


def remove_sockets(directory: Path) -> None:
    """Removes what a server that was killed has left behind: ours would not bind over it."""
    for path in (*directory.glob("worker-*"), directory / TAKEOVER_SOCKET):
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


def _chosen(config: Config) -> tuple[Path, bool, bool]:
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
    if (why := _unsafe(directory, found, os.geteuid())) is not None:
        raise DirectoryRefused(why)
    return is_made


def _unsafe(directory: Path, found: os.stat_result, owner: int) -> str | None:
    if not stat.S_ISDIR(found.st_mode):
        return f"runtime.directory: {directory} is no directory"
    if found.st_uid != owner or found.st_mode & 0o077:
        # Whoever can connect to a worker's socket can end any session.
        return (
            f"runtime.directory: {directory} is user {found.st_uid}'s with mode {stat.S_IMODE(found.st_mode):04o}, and "
            f"has to be user {owner}'s with mode 0700"
        )
    return None
