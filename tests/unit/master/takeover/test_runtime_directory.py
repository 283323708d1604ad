"""The directory in which workers meet: whose it has to be."""

import os
from pathlib import Path

import pytest

from millrace.master.takeover.runtime_directory import DirectoryRefused, claim
from millrace.relay.config.model import Config, RuntimeConfig


def test_a_directory_that_others_can_enter_is_refused_with_its_owner_and_mode(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    directory.chmod(0o750)
    with pytest.raises(DirectoryRefused) as refusal:
        claim(Config(runtime=RuntimeConfig(str(directory))))
    assert str(refusal.value) == (
        f"runtime.directory: {directory} belongs to user {os.geteuid()} with mode 0750, and has to belong "
        f"to user {os.geteuid()} with mode 0700"
    )
