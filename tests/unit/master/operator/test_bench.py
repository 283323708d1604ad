"""What `millrace bench` runs, with a process that holds a server's lock."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from millrace.master.operator.bench import Refused, command
from millrace.master.operator.cli import keys
from millrace.master.takeover.locks import lock_file
from millrace.relay.config.model import Config
from millrace.relay.config.parse import parse


@pytest.fixture(autouse=True)
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A load generator can be found, whether the tree's own is built or not."""
    program = tmp_path / "bin" / "millrace-load"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


@pytest.fixture
def master(tmp_path: Path) -> Iterator[int]:
    """A process that holds the lock as a master does."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        lock_file(tmp_path / "lock")
        os.write(writer, b"held")
        signal.pause()
    os.read(reader, 4)
    yield pid
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(reader)
    os.close(writer)


def configured(text: str, directory: Path) -> Config:
    """A configuration whose server is, or is not, there."""
    config = parse(f'{text}\n[runtime]\ndirectory = "{directory}"\n')
    assert isinstance(config, Config)
    return config


def test_an_open_server_is_measured_in_rooms_of_any_name(master: int, tmp_path: Path) -> None:
    program, *words = command(configured("[http]\nport = 81", tmp_path), ["audio", "--viewers", "9"])
    assert program.endswith("/millrace-load")
    whip, whep = (f"http://127.0.0.1:81/{which}/{{room}}" for which in ("whip", "whep"))
    where = ["--whip", whip, "--whep", whep, "--metrics", "http://127.0.0.1:6789/metrics", "--pid", str(master)]
    assert words == ["audio", "--viewers", "9", *where]


def test_a_server_with_keys_is_shown_a_token_for_the_one_room(master: int, tmp_path: Path) -> None:
    words = command(configured(keys() + '[http]\nbind = ["::"]', tmp_path), [])
    whip = words[words.index("--whip") + 1]
    assert whip.startswith("http://[::1]:7880/whip/bench-")
    assert words[words.index("--whep") + 1] == whip.replace("whip", "whep")
    assert words[words.index("--token") + 1].count(".") == 2


@pytest.mark.parametrize(
    ("bind", "host"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]"), ("192.0.2.1", "192.0.2.1")]
)
def test_metrics_are_read_where_the_administration_address_is(
    master: int, tmp_path: Path, bind: str, host: str
) -> None:
    words = command(configured(keys() + f'[admin]\nbind = "{bind}"\nport = 82', tmp_path), ["joins", "--scrape", "1"])
    assert words[words.index("--metrics") + 1] == f"http://{host}:82/metrics"


def test_without_a_server_nothing_is_measured(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no server runs"):
        command(configured("", tmp_path), [])
