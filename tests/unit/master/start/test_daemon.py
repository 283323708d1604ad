"""The pid file, without a daemon."""

import errno
import os
from pathlib import Path

import pytest

from millrace.master.start.daemon import PID_FILE, PidFileRefused, held
from millrace.master.takeover.reexec import Executable


def executable(folder: Path, passed: dict[str, list[int]] | None = None) -> Executable:
    return Executable(("/bin/false",), folder, passed, False)


def test_pid_file_has_our_number_while_we_hold_it_and_is_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text("another number, and longer\n")
    with held(path, executable(tmp_path)):
        assert path.read_text() == f"{os.getpid()}\n"
    assert not path.exists()


def test_upgraded_program_needs_no_space_for_the_pid_file_that_it_was_left(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text("as it was")
    # What cannot be written to stands for a disk that is full.
    passed = os.open(path, os.O_RDONLY)
    upgraded = executable(tmp_path, {PID_FILE: [passed]})
    with held(path, upgraded):
        assert path.read_text() == "as it was"
        assert upgraded.always_passed == {PID_FILE: (passed,)}
    assert not path.exists()


def test_pid_file_without_space_for_a_number_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with (
        pytest.raises(PidFileRefused, match="cannot be written: No space"),
        held(tmp_path / "pid", executable(tmp_path)),
    ):
        raise AssertionError("not reached")
