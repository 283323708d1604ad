"""SIGUSR2: the program that is now on disk takes the master's place, and calls go on; a bad one changes nothing."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.aiortc_client import Publisher
from tests.system.asking import counter, delete, patch
from tests.system.posts import Posts
from tests.system.relay_process import ROOT, Relay
from tests.system.watched import told, watched_call

ROLLED_OUT = "all workers have the new configuration"
SETTINGS = {"workers.quick_death_seconds": "1", "workers.drain_seconds": "60"}


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Path]:
    """A copy of the program, to be changed while it runs."""
    leave = shutil.ignore_patterns("engine", "__pycache__")
    shutil.copytree(ROOT / "src" / "millrace", tmp_path / "program" / "millrace", ignore=leave)
    return tmp_path / "program"


def change(file: Path, old: str, new: str) -> None:
    """As an installation does: the new file takes the old one's name."""
    text = file.read_text()
    assert old in text
    changed = file.with_suffix(".new")
    changed.write_text(text.replace(old, new))
    changed.rename(file)


async def test_calls_go_on_while_a_new_program_takes_the_masters_place(program: Path) -> None:
    async with (
        Relay(workers=2, settings=SETTINGS, root=program) as relay,
        watched_call(relay) as (publisher, viewer, watched),
    ):
        states = list(watched.states)
        master, workers = relay.pid, relay.worker_pids()
        change(
            program / "millrace" / "master" / "master.py",
            '"all workers serve"',
            '"all workers of the new program serve"',
        )
        asked_at = time.monotonic()
        async with Posts(relay, 2) as posts:
            os.kill(relay.pid, signal.SIGUSR2)
            await relay.until_logged("all workers of the new program serve")
            await relay.until_logged(ROLLED_OUT)
            await relay.until_ready()
        await watched.until_packets(time.monotonic() + 0.5, 30)
        print(told("upgrade", [watched.gap(asked_at)]), posts.statuses)
        assert set(posts.statuses) == {201}
        assert set(posts.ends) == {200}
        # Cores that an encoder, a decoder and a Python that starts share: by itself it is a twentieth.
        assert watched.gap(asked_at) < 5
        assert relay.pid == master
        assert len(relay.worker_pids()) == 2
        assert not set(workers) & set(relay.worker_pids())
        # Of those that only post, some wait for their clients.
        assert await counter(relay, "millrace_sessions_adopted_total") >= 2
        assert await counter(relay, "millrace_sessions_lost_total") == 0
        assert watched.states == states
        assert [await patch(client) for client in (publisher, viewer)] == [204, 204]
        assert [await delete(client) for client in (viewer, publisher)] == [200, 200]


BAD = (
    ("relay/config/model.py", "class Config:", "class Confuse:", "ImportError"),
    ("workers/media.py", "class Media:", "class Medium:", "ImportError"),
    ("workers/media.py", "self._engine.start()", "self._engine.begin_it()", "AttributeError"),
    ("master/__main__.py", "import sys", "raise SystemExit(0)", "it stopped"),
    ("master/upgrade.py", "import_module(name)", "signal.pause()", "takes too long"),
)
"""File, what stands there, what then stands there, and what is said about it."""


async def test_programs_that_do_not_come_up_change_nothing(program: Path) -> None:
    async with Relay(workers=1, settings=SETTINGS | {"workers.boot_seconds": "10"}, root=program) as relay:
        processes = relay.processes()
        for times, (file, old, new, reason) in enumerate(BAD, 1):
            change(program / "millrace" / file, old, new)
            os.kill(relay.pid, signal.SIGUSR2)
            await relay.until_logged("upgrade refused: the new program does not start", times, 30)
            assert reason in relay.log()
            change(program / "millrace" / file, new, old)
        await relay.until_ready()
        assert relay.processes() == processes


async def test_a_program_with_another_contract_starts_when_the_last_call_is_over(program: Path) -> None:
    async with (
        Relay(workers=2, settings=SETTINGS, root=program) as relay,
        Publisher(f"{relay.url}/whip/hall", audio=False) as publisher,
    ):
        await publisher.open(0)
        await publisher.connected()
        master, workers = relay.pid, relay.worker_pids()
        facts = program / "millrace" / "relay" / "contract" / "facts.py"
        change(facts, "VERSION = 1", "VERSION = 2")
        change(facts, "VERSIONS_READ = range(1, ", "VERSIONS_READ = range(2, ")
        os.kill(relay.pid, signal.SIGUSR2)
        await relay.until_logged("contract `facts`")
        await relay.until_logged("draining")
        assert relay.worker_pids() == workers
        assert await delete(publisher) == 200
        await relay.until_logged("all workers serve", 2)
        await relay.until_ready()
        assert relay.pid == master
        assert not set(workers) & set(relay.worker_pids())
        async with Publisher(f"{relay.url}/whip/hall", audio=False) as another:
            await another.open()
            await another.connected()
