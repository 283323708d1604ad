"""The directory in which workers meet: whose it has to be."""

import os
from pathlib import Path

import pytest

from millrace.master.takeover.runtime_directory import DirectoryRefused, claim, default_directory
from millrace.relay.config.model import Config, RuntimeConfig
from tests.unit.master.takeover_kit import config


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


def test_the_default_directory_follows_the_listening_addresses() -> None:
    ports = ("http.port=7880", "media.port=7882", "admin.port=6789")
    assert default_directory(config()) is None, "nobody knows the ports"
    first = default_directory(config(*ports))
    assert first == default_directory(config(*ports, "log.level=debug"))
    assert first != default_directory(config(*ports, "media.port=7883"))
