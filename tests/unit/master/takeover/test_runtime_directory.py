"""The directory in which workers meet: whose it has to be."""

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from millrace.master.takeover.locks import lock_file
from millrace.master.takeover.runtime_directory import (
    DirectoryRefused,
    claim,
    default_directories,
    leave,
    running_master,
)
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


PORTS = ("http.port=7880", "media.port=7882", "admin.port=6789")


def test_the_default_directory_follows_the_listening_addresses() -> None:
    assert default_directories(config()) == [], "nobody knows the ports"
    first = default_directories(config(*PORTS))
    assert first == default_directories(config(*PORTS, "log.level=debug"))
    assert first != default_directories(config(*PORTS, "media.port=7883"))


def test_the_default_directory_is_the_service_managers_or_roots_own_before_the_temporary_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    folders = [str(path.parent) for path in default_directories(config(*PORTS), {"RUNTIME_DIRECTORY": "/run/a:/run/b"})]
    assert folders == ["/run/a", "/run", tempfile.gettempdir()]
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    folders = [str(path.parent) for path in default_directories(config(*PORTS), {"XDG_RUNTIME_DIR": "/run/user/1000"})]
    assert folders == [tempfile.gettempdir()]


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A socket's path is short, and pytest's are not."""
    with tempfile.TemporaryDirectory(prefix="m") as folder:
        yield Path(folder)


def test_where_a_server_of_before_lives_comes_first(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("new", "old"):
        (short_path / name).mkdir()
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(short_path / "new"))
    monkeypatch.setattr(tempfile, "tempdir", str(short_path / "old"))
    settings = config(*PORTS)
    new, *_, old = default_directories(settings)
    fresh = claim(settings)
    assert fresh.directory == new
    leave(fresh)
    old.mkdir(mode=0o700)
    reading, writing = os.pipe()
    worker = os.fork()
    if worker == 0:
        lock_file(old / "lock", 1)
        os.write(writing, b"!")
        signal.pause()
    os.read(reading, 1)
    try:
        found = claim(settings)
        assert found.directory == old
        assert running_master(settings) is None
    finally:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
    leave(found)
