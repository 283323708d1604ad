"""Looks whether the runtime directory and its lock file are still there, and makes them anew: a cleaner of temporary
files or a person may have swept them while the server runs. Each process looks after its own lock; must never know
what else lies there. Read next: `master/takeover/runtime_directory.py`, which says what does.

The file's descriptor keeps its number, by which others know it, when it becomes that of another file.
"""

import logging
import os
from contextlib import suppress
from pathlib import Path

from millrace.master.takeover.locks import Held, holder, lock
from millrace.master.takeover.runtime_directory import LOCK, DirectoryRefused, make_directory

log = logging.getLogger("millrace.master")


class RuntimeFiles:
    """The runtime directory, as one process sees it. A `millrace.relay.contract.boot.RuntimeLock`."""

    def __init__(self, directory: Path, descriptor: int, at: int, master: int) -> None:
        self._directory = directory
        self._descriptor = descriptor
        self._at = at
        """The byte that this process locks."""
        self._master = master
        self._said = ""

    def look(self, may_make: bool) -> bool:
        """Has this process's lock be in the file that the next master finds. With `may_make`, makes directory and file
        when they are gone; without it, follows the master, who makes them. Returns True when the file is another one.
        """
        try:
            if may_make:
                _make_private(self._directory)
            is_other = self._follow(may_make)
            lock(self._descriptor, self._at)
        except FileNotFoundError:
            # Until the master has made it.
            return False
        except (OSError, Held, DirectoryRefused) as error:
            if str(error) != self._said:
                self._said = str(error)
                log.warning("runtime.directory: %s was swept and cannot be made anew: %s", self._directory, error)
            return False
        self._said = ""
        return is_other

    def _follow(self, may_make: bool) -> bool:
        path = self._directory / LOCK
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(path), os.fstat(self._descriptor)):
                return False
        opened = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if may_make else 0), 0o644)
        try:
            # A second server may have made it. Its master would take us for workers that a dead one has left.
            if not may_make and holder(opened, 0) != self._master:
                return False
            os.dup2(opened, self._descriptor, inheritable=False)
        finally:
            # Closing it ends our locks on that file, so it is locked afterwards.
            os.close(opened)
        log.warning("runtime.directory: the lock file in %s was removed, and is another one now", self._directory)
        return True


def _make_private(directory: Path) -> None:
    """Makes the directory, or makes it private if only we could write there. Raises DirectoryRefused or OSError."""
    with suppress(FileNotFoundError):
        found = directory.lstat()
        if (
            found.st_uid == os.geteuid()
            and not found.st_mode & 0o022
            and found.st_mode & 0o055
            and not directory.is_symlink()
        ):
            directory.chmod(0o700)
    if make_directory(directory):
        log.warning("runtime.directory: %s was gone and is made anew", directory)
