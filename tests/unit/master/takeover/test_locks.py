"""Locks that end with their holder: who has one, and that a fork does not share it."""

import os
import signal
from pathlib import Path

import pytest

from millrace.master.takeover.locks import Held, holder, lock, lock_file


def child_that_locks(descriptor: int, at: int) -> int:
    """A process that has the lock and sleeps."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            lock(descriptor, at)
            os.write(writing, b"+")
            signal.pause()
        finally:
            os._exit(1)
    os.close(writing)
    assert os.read(reading, 1) == b"+"
    os.close(reading)
    return pid


def test_a_lock_ends_with_its_holder_and_names_it_before(tmp_path: Path) -> None:
    descriptor = lock_file(tmp_path / "lock")
    assert holder(descriptor, 3) is None
    pid = child_that_locks(descriptor, 3)
    assert holder(descriptor, 3) == pid
    assert holder(descriptor, 4) is None
    with pytest.raises(Held) as held:
        lock(descriptor, 3)
    assert held.value.pid == pid
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert holder(descriptor, 3) is None
    lock(descriptor, 3)


def test_a_forked_child_does_not_have_its_parents_lock(tmp_path: Path) -> None:
    descriptor = lock_file(tmp_path / "lock")
    pid = os.fork()
    if pid == 0:
        os._exit(0 if holder(descriptor, 0) == os.getppid() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_lock_file_that_was_removed_meanwhile_is_made_again(tmp_path: Path) -> None:
    first = lock_file(tmp_path / "lock")
    (tmp_path / "lock").unlink()
    second = lock_file(tmp_path / "lock")
    assert not os.path.samestat(os.fstat(first), os.fstat(second))
    assert os.path.samestat(os.fstat(second), (tmp_path / "lock").stat())
