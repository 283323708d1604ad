"""The runtime directory, in which workers find each other's sockets and a new master finds its dead predecessor's
workers. Locks it for one master at a time, and removes it with the server. The directory must never be one that another
user can enter, as that user could end any session. Read next: `master/takeover/predecessor.py`.

    lock          byte 0 is the master's, byte 1 + slot its worker's (`master/takeover/locks.py`)
    heirs         where the next master asks workers without one for their descriptors (`workers/orphan.py`); `heirs-N`
                  is a worker's own, when that is gone
    worker-*      the workers' own
"""

import hashlib
import os
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from millrace.master.takeover.locks import Held, holder, lock_file
from millrace.relay.config.model import LONGEST_RUNTIME_DIRECTORY, Config
from millrace.relay.config.rules import MAX_SLOTS
from millrace.relay.contract.takeover import TAKEOVER_SOCKET

LOCK = "lock"


class DirectoryRefused(Exception):
    """The directory is not safe to use, or another master has it; the text names the key."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """A runtime directory that this master has locked."""

    directory: Path
    lock: int
    """The lock file's descriptor; byte 0 is locked."""
    can_be_found: bool
    """True when a server that is started again with the same configuration looks here."""
    is_ours: bool
    """True when the server made the directory, and removes it at the end."""


def claim(config: Config, inherited: Path | None = None) -> Runtime:
    """Makes the runtime directory when it is missing, and locks it: the inherited one, else the configured one, else
    one that is named after the listening addresses. Raises DirectoryRefused.
    """
    directory, is_ours, can_be_found = (inherited, make_directory(inherited), True) if inherited else _chosen(config)
    try:
        lock = lock_file(directory / LOCK)
    except Held as held:
        raise DirectoryRefused(
            f"runtime.directory: {directory} is held by process {held.pid or 'unknown'}: Millrace runs already"
        ) from None
    except OSError as error:
        raise DirectoryRefused(f"runtime.directory: {directory} cannot be written: {error.strerror}") from error
    return Runtime(directory, lock, can_be_found, is_ours)


def running_master(config: Config) -> int | None:
    """Returns the process id of the master that runs with this configuration on this machine; None without one."""
    configured = config.runtime.directory
    for directory in [Path(configured)] if configured else default_directories(config):
        with suppress(OSError):
            lock = os.open(directory / LOCK, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if (master := holder(lock, 0)) is not None:
                    return master
            finally:
                os.close(lock)
    return None


def unusable(directory: Path) -> str | None:
    """Returns why `claim` would refuse the directory, as far as that shows without making it; None when it would not.
    Root may ask for another user's server.
    """
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
    """Removes sockets, lock file and directory, unless workers live on there: another master may come for them."""
    if living(runtime.lock):
        return
    remove_sockets(runtime.directory)
    # Last, while it is still locked.
    (runtime.directory / LOCK).unlink(missing_ok=True)
    if runtime.is_ours:
        with suppress(OSError):
            runtime.directory.rmdir()


def living(lock: int) -> list[int]:
    """Returns the slots in which another process lives."""
    return [slot for slot in range(MAX_SLOTS) if holder(lock, 1 + slot) is not None]


def remove_sockets(directory: Path) -> None:
    """Removes the sockets of a server that was killed: ours could not be bound over them."""
    for path in (*directory.glob("worker-*"), *takeover_sockets(directory)):
        if path.is_socket():
            path.unlink(missing_ok=True)


def takeover_sockets(directory: Path) -> list[Path]:
    """Returns where orphaned workers may be asked."""
    return [directory / TAKEOVER_SOCKET, *directory.glob(f"{TAKEOVER_SOCKET}-*")]


def default_directories(config: Config, environment: Mapping[str, str] = os.environ) -> list[Path]:
    """Returns the directories that may be the server's when none is configured, named after its listening addresses,
    the best first; none when the kernel is to pick one of the ports, as then another start would not find it.
    """
    listening = (config.http.bind, config.http.port, config.media.bind, config.media.port, config.admin.port)
    if 0 in (config.http.port, config.media.port, config.admin.port):
        return []
    digest = hashlib.sha256(repr(listening).encode()).hexdigest()[:8]
    name = f"millrace-{os.geteuid()}-{config.http.port}-{digest}"
    # The service manager's, which may have given several, separated by colons (systemd.exec(5)).
    given = environment.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    # Not XDG_RUNTIME_DIR, which ends with its user's last session, and a server may outlast that.
    folders = [given, "/run" if os.geteuid() == 0 else "", tempfile.gettempdir()]
    paths = [Path(folder, name) for folder in folders if folder]
    return [path for path in paths if LONGEST_RUNTIME_DIRECTORY.accepts(str(path))]


def _is_used(directory: Path) -> bool:
    """True when a master or a worker holds the directory's lock file."""
    try:
        descriptor = os.open(directory / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return any(holder(descriptor, at) is not None for at in range(1 + MAX_SLOTS))
    finally:
        os.close(descriptor)


def _chosen(config: Config) -> tuple[Path, bool, bool]:
    """Returns the directory, whether to remove it at the end, and whether another start finds it."""
    if config.runtime.directory:
        directory = Path(config.runtime.directory).absolute()
        return directory, make_directory(directory), True
    # Where somebody lives comes first: earlier releases were always in the temporary directory, and who starts a server
    # by hand has not the service manager's.
    for default in sorted(default_directories(config), key=lambda path: not _is_used(path)):
        # Another user may have made one of that name, as every user may write there: then we take another one.
        with suppress(DirectoryRefused):
            make_directory(default)
            return default, True, True
    return Path(tempfile.mkdtemp(prefix="millrace-")), True, False


def make_directory(directory: Path) -> bool:
    """Makes the directory; returns False when it was there. Raises DirectoryRefused."""
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
        # A user who can connect to a worker's socket can end any session.
        return (
            f"runtime.directory: {directory} belongs to user {found.st_uid} with mode "
            f"{stat.S_IMODE(found.st_mode):04o}, and has to belong to user {owner} with mode 0700"
        )
    return None
