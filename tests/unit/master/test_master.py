"""The master when the system refuses it a process, a descriptor or a reader: nothing ends by it."""

import errno
import io
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from millrace.master import master as master_module
from millrace.master.arena import Arena
from millrace.master.master import Master
from millrace.master.start.startup import QuietStartup, Startup
from millrace.master.takeover.reexec import Executable
from millrace.master.takeover.runtime_files import RuntimeFiles
from millrace.master.takeover.sd_notify import ServiceManager
from millrace.master.upgrade import Upgrade
from millrace.relay.config.model import Config


class Forks:
    """`os.fork` that has no process for a while, and numbers afterwards."""

    def __init__(self) -> None:
        self.failures, self.calls = 0, 0

    def __call__(self) -> int:
        self.calls += 1
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return 1_000_000 + self.calls


class Unread(io.StringIO):
    """A pipe whose reader is gone. What it did not take stays in the buffer."""

    def write(self, text: str) -> int:
        self.flush()
        return len(text)

    def flush(self) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


@pytest.fixture
def forks(monkeypatch: pytest.MonkeyPatch) -> Forks:
    made = Forks()
    monkeypatch.setattr(os, "fork", made)
    return made


@pytest.fixture
def upgrade(tmp_path: Path) -> Upgrade:
    prepared = SimpleNamespace(inherited=SimpleNamespace(descriptors=()))
    return Upgrade(Executable(("/bin/false",), tmp_path, None, False), prepared, ServiceManager({}))


@pytest.fixture
def master(tmp_path: Path, upgrade: Upgrade) -> Iterator[Master]:
    config = Config()
    arena = Arena.make(2, config.arena)
    arena.want(2)
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    prepared = SimpleNamespace(
        config=config,
        arena=arena,
        slots=2,
        lock=lock,
        goal=2,
        eligible=None,
        child=lambda *_: None,
        files=lambda: RuntimeFiles(tmp_path, lock, 0, os.getpid()),
    )
    yield Master(prepared, Config, Startup(), upgrade)
    os.close(lock)
    os.close(arena.fd)


def test_a_fork_that_fails_is_said_and_tried_again_after_a_while_and_the_others_are_forked(
    master: Master, forks: Forks, caplog: pytest.LogCaptureFixture
) -> None:
    forks.failures = 1
    master._fork_due()
    first, second = master._slots.lives
    assert (first.pid, second.pid) == (0, 1_000_002)
    assert [each.levelno for each in caplog.records if "cannot be forked" in each.message] == [logging.WARNING]
    assert os.strerror(errno.EAGAIN) in caplog.text
    master._fork_due()
    assert forks.calls == 2, "not at once"
    first.due_at = 0
    master._fork_due()
    assert (first.pid, first.incarnation) == (1_000_003, 1)


def test_predecessor_who_cannot_be_looked_at_leaves_his_slot_for_later_and_no_other(
    master: Master, forks: Forks, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(lock: int, slot: int) -> None:
        if slot == 0:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(master_module, "kill_orphan", refused)
    master._fork_due()
    assert [life.pid for life in master._slots.lives] == [0, 1_000_001]
    assert "slot 0 has to wait: [Errno 24] Too many open files" in caplog.text


def test_greeting_that_nobody_has_read_keeps_no_worker_from_being_forked(
    master: Master, upgrade: Upgrade, forks: Forks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", Unread())
    master._fork_due()
    assert [life.pid for life in master._slots.lives] == [1_000_001, 1_000_002]
    upgrade.begin(0.0, 30.0)
    assert upgrade.reaped(1_000_003, 0)


def test_end_that_nobody_at_the_terminal_hears_of_is_the_same_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Unread())
    QuietStartup().failed("the server stops")


def test_an_upgrade_that_cannot_be_tried_is_refused_and_the_next_one_is_not(
    upgrade: Upgrade, forks: Forks, caplog: pytest.LogCaptureFixture
) -> None:
    forks.failures = 1
    upgrade.begin(0.0, 30.0)
    assert [each.levelno for each in caplog.records if "cannot be tried" in each.message] == [logging.WARNING]
    assert upgrade.next_deadline(0.0) == float("inf")
    upgrade.begin(0.0, 30.0)
    assert upgrade.next_deadline(0.0) == 30.0
    assert upgrade.reaped(1_000_002, 0)
