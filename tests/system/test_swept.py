"""The runtime directory is swept while the server runs, all of it or a part: workers still find each other, successors
come up, and the next master finds whom the last one has left. Read next: `master/takeover/runtime_files.py`.
"""

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.asking import counter, delete, patch
from tests.system.relay_process import Relay
from tests.system.watched import watched_call
from tests.system.worker_pids import pid_by_slot, until_gone

SETTINGS = {"workers.quick_death_seconds": "1"}


def sweep_all(directory: Path) -> None:
    shutil.rmtree(directory)


def sweep_lock(directory: Path) -> None:
    (directory / "lock").unlink()


def sweep_sockets(directory: Path) -> None:
    for path in directory.iterdir():
        if path.is_socket():
            path.unlink()


def replace(directory: Path) -> None:
    directory.rename(directory.with_name(directory.name + "-away"))
    directory.mkdir()
    directory.chmod(0o755)
    shutil.rmtree(directory.with_name(directory.name + "-away"))


SWEEPS = (sweep_all, sweep_lock, sweep_sockets, replace)


async def until_whole(relay: Relay, orphaned: bool = False) -> None:
    """All that the server needs lies there again, and is its own."""
    names = {"lock", *(f"worker-{slot}.{end}" for slot in (0, 1) for end in ("pub", "rpc"))}
    async with asyncio.timeout(30):
        while not (
            relay.runtime.exists()
            and names <= {path.name for path in relay.runtime.iterdir()}
            and (not orphaned or list(relay.runtime.glob("heirs*")))
            and locked_bytes(relay.runtime / "lock") >= {1, 2} | (set() if orphaned else {0})
        ):
            await asyncio.sleep(0.02)
    assert relay.runtime.stat().st_mode & 0o777 == 0o700


def locked_bytes(path: Path) -> set[int]:
    """From /proc/locks: which bytes of the file some process has locked."""
    try:
        inode = path.stat().st_ino
    except FileNotFoundError:
        return set()
    lines = (line.split() for line in Path("/proc/locks").read_text().splitlines() if "->" not in line)
    return {int(fields[6]) for fields in lines if fields[5].rpartition(":")[2] == str(inode)}


@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda sweep: sweep.__name__)
async def test_what_was_swept_is_made_anew_and_successors_and_the_next_master_find_it(
    sweep: Callable[[Path], None],
) -> None:
    async with (
        Relay(workers=2, settings=SETTINGS) as relay,
        watched_call(relay, audio=False) as (publisher, viewer, watched),
    ):
        states = list(watched.states)
        sweep(relay.runtime)
        # At once, so that the successor needs what nobody has looked at yet.
        victim = pid_by_slot(relay)[0]
        os.kill(victim, signal.SIGKILL)
        await until_gone(victim, 30)
        await until_whole(relay)
        await relay.until_ready(60)
        await watched.until_packets(time.monotonic(), 30)
        assert [await patch(client) for client in (publisher, viewer) * 4] == [204] * 8
        await relay.kill_master()
        await relay.start()
        await relay.until_logged("all workers serve", 2, 60)
        await relay.until_ready(60)
        await watched.until_packets(time.monotonic(), 30)
        assert await counter(relay, "millrace_sessions_lost_total") == 0
        assert watched.states == states
        assert [await patch(client) for client in (publisher, viewer) * 4] == [204] * 8
        assert "runtime.directory: " in relay.log() or "bound anew" in relay.log()
        assert [await delete(client) for client in (viewer, publisher)] == [200, 200]


@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda sweep: sweep.__name__)
async def test_workers_without_a_master_make_anew_what_the_next_one_needs(sweep: Callable[[Path], None]) -> None:
    async with (
        Relay(workers=2, settings=SETTINGS) as relay,
        watched_call(relay, audio=False) as (publisher, viewer, watched),
    ):
        states = list(watched.states)
        await relay.kill_master()
        await relay.until_logged("the master is gone", 2)
        sweep(relay.runtime)
        await until_whole(relay, orphaned=True)
        await relay.start()
        await relay.until_logged("all workers serve", 2, 60)
        await relay.until_ready(60)
        await watched.until_packets(time.monotonic(), 30)
        assert watched.states == states
        assert await counter(relay, "millrace_sessions_lost_total") == 0
        assert [await patch(client) for client in (publisher, viewer) * 4] == [204] * 8
