"""Opens files whose path an operator chose, in directories where other users may plant something: follows no symbolic
link of another user, and takes no file of another user where everybody may make one. It must never know what is
written. Read next: `workers/logs.py`, which opens the log file so, and `master/takeover/locks.py`, for the pid file.

The rules are those of the kernel's `fs.protected_symlinks`, `protected_regular` and `protected_hardlinks`
(Documentation/admin-guide/sysctl/fs.rst), which a machine may have turned off. Root is stricter: it follows links of
its own only, as the owner of a log's directory could otherwise have it write anywhere.
"""

import errno
import os
import stat
from pathlib import Path

_MAX_LINKS = 40
"""As the kernel counts them (path_resolution(7))."""
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_SHARED = stat.S_ISVTX | stat.S_IWOTH
"""Everybody may make files in such a directory, and nobody may remove those of others."""


_APPENDING = os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY
"""A pipe or a terminal with a name is not waited for, neither now nor by writes. Files have no such flag."""


class Untrusted(PermissionError):
    """Another user could have put the link or the file there; the text says which."""

    def __init__(self, what: str, found: os.stat_result, path: str) -> None:
        super().__init__(errno.EPERM, f"{what} of user {found.st_uid}, which is not trusted", path)


def open_trusted(path: str | Path, flags: int, mode: int = 0o640) -> int:
    """Returns a descriptor of the file, opened as by `os.open`. Raises Untrusted or another OSError."""
    whole = os.path.abspath(path)
    steps = list(reversed(Path(whole).parts[1:]))
    links = 0
    folder = os.open("/", _DIRECTORY)
    try:
        while steps:
            step = steps.pop()
            found = _look(step, folder)
            if found is not None and stat.S_ISLNK(found.st_mode) and not _is_process_link(found):
                links += 1
                if links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), whole)
                folder = _follow(step, folder, found, steps, whole)
            elif steps:
                way = _DIRECTORY | _no_follow(found)
                folder = _replace(folder, os.open(step, way, dir_fd=folder))
            else:
                return _open_last(step, folder, found, (flags, mode), whole)
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), whole)
    finally:
        os.close(folder)


def open_log(path: str | Path, more: int = os.O_CREAT) -> int:
    """Returns a descriptor that appends to a log, and waits for nobody: a named pipe may have no reader yet, and what
    it cannot hold is refused with EAGAIN. Raises Untrusted or another OSError.
    """
    try:
        return open_trusted(path, os.O_WRONLY | _APPENDING | more)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        # A named pipe that nobody reads. Opened for both it has a reader, ourselves, and keeps lines for the next one.
        return open_trusted(path, os.O_RDWR | _APPENDING)


def _look(name: str, folder: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _is_process_link(found: os.stat_result) -> bool:
    """True for links below /proc, such as that of /dev/stdout: the kernel makes them, and some lead to no path."""
    try:
        return found.st_dev == os.stat("/proc").st_dev
    except OSError:
        return False


def _follow(name: str, folder: int, link: os.stat_result, steps: list[str], whole: str) -> int:
    """Puts what the link names in front of the steps that are left. Returns the folder from which they lead on."""
    owner = os.fstat(folder).st_uid
    if link.st_uid not in (0, os.geteuid()) and (link.st_uid != owner or os.geteuid() == 0):
        raise Untrusted("a symbolic link", link, whole)
    target = os.readlink(name, dir_fd=folder)
    steps += [step for step in reversed(target.split("/")) if step not in ("", ".")]
    if target.startswith("/"):
        return _replace(folder, os.open("/", _DIRECTORY))
    return folder


def _open_last(name: str, folder: int, found: os.stat_result | None, how: tuple[int, int], whole: str) -> int:
    flags, mode = how
    shared = os.fstat(folder)
    is_shared = shared.st_mode & _SHARED == _SHARED
    if found is not None and is_shared:
        # Before it is opened, too: to open a pipe may wait for ever.
        _check_shared(found, shared, whole)
    opened = os.open(name, flags | os.O_CLOEXEC | _no_follow(found), mode, dir_fd=folder)
    try:
        if is_shared:
            _check_shared(os.fstat(opened), shared, whole)
    except BaseException:
        os.close(opened)
        raise
    return opened


def _no_follow(found: os.stat_result | None) -> int:
    """What becomes a link after we looked is refused."""
    return 0 if found is not None and stat.S_ISLNK(found.st_mode) else os.O_NOFOLLOW


def _check_shared(found: os.stat_result, folder: os.stat_result, whole: str) -> None:
    if found.st_uid not in (os.geteuid(), folder.st_uid):
        raise Untrusted("a file", found, whole)
    if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
        raise Untrusted("a file with a second name", found, whole)


def _replace(folder: int, by: int) -> int:
    os.close(folder)
    return by
