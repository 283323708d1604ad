"""The program's files are replaced or removed while it runs, as every automatic upgrade does hours before its signal: a
worker that dies, and a new configuration, need nothing of them. Read next: `master/start/preload.py`.
"""

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.raw_client import request
from tests.system.asking import delete, move, patch
from tests.system.posts import OFFER
from tests.system.relay_process import ROOT, Relay
from tests.system.watched import watched_call
from tests.system.worker_pids import pid_by_slot, until_gone

SETTINGS = {
    "workers.quick_death_seconds": "1",
    "workers.drain_seconds": "60",
    "workers.respawn_backoff_limit_ms": "200",
}
ROLLED_OUT = "all workers have the new configuration"
WRITES_DOWN = """
import os, sys, time

_file = os.open(os.environ["READ_FROM_DISK"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
_kinds = (".py", ".pyc", ".so", ".html", ".css", ".js", ".pem")

def _note(event, given):
    if event == "import":
        what = given[0]
    elif event == "open" and isinstance(given[0], str) and given[0].endswith(_kinds):
        what = given[0]
    else:
        return
    os.write(_file, f"{os.getpid()} {time.monotonic()} {event} {what}\\n".encode())

sys.addaudithook(_note)
"""
"""Every import of a module that is not there yet, and every file of a program that is opened, by which process."""
REFUSES_SLOT_1 = """

def run(boot: Boot, begin=run) -> int:
    import os
    if boot.slot == 1 and os.path.exists({gate!r}):
        raise RuntimeError("slot 1 cannot start")
    return begin(boot)
"""


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Path]:
    """A copy of the program, to be changed while it runs."""
    copy_program(tmp_path / "program")
    return tmp_path / "program"


def copy_program(to: Path) -> None:
    leave = shutil.ignore_patterns("engine", "__pycache__")
    shutil.copytree(ROOT / "src" / "millrace", to / "millrace", ignore=leave)


async def until_served_by_others(relay: Relay, before: dict[int, int]) -> None:
    async with asyncio.timeout(60):
        while any(pid_by_slot(relay)[slot] == pid for slot, pid in before.items()):
            await asyncio.sleep(0.01)
    await relay.until_ready(60)


@pytest.mark.parametrize("files", ["gone", "of another release"])
async def test_workers_are_replaced_and_configured_anew_without_the_programs_files(
    program: Path, tmp_path: Path, files: str
) -> None:
    async with (
        Relay(workers=2, settings=SETTINGS, config="[limits]\nm_lines = 31\n", root=program) as relay,
        watched_call(relay, audio=False) as (publisher, viewer, watched),
    ):
        states = list(watched.states)
        shutil.rmtree(program)
        program.mkdir()
        if files != "gone":
            copy_program(program)
            # A name that the modules in memory do not have, of a module that every worker needs.
            with (program / "millrace/relay/config/model.py").open("a") as model:
                model.write("\nNEW = 1\n")
            worker = program / "millrace/workers/worker.py"
            worker.write_text(
                worker.read_text().replace(
                    "import asyncio\n", "import asyncio\nfrom millrace.relay.config.model import NEW\n"
                )
            )
        before = pid_by_slot(relay)
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
            await until_gone(pid, 30)
        await until_served_by_others(relay, before)
        await watched.until_packets(time.monotonic(), 30)
        before = pid_by_slot(relay)
        relay.config_path.write_text("[limits]\nm_lines = 30\n")
        os.kill(relay.pid, signal.SIGHUP)
        await relay.until_logged(ROLLED_OUT, 1, 60)
        await until_served_by_others(relay, before)
        await watched.until_packets(time.monotonic(), 30)
        # The page is the program's, too.
        assert {request("GET", f"{relay.url}/").status for _ in range(8)} == {200}
        if files == "gone":
            shutil.rmtree(program)
            copy_program(program)
        os.kill(relay.pid, signal.SIGUSR2)
        await relay.until_logged("upgrade: the new program takes over", 1, 60)
        await relay.until_logged(ROLLED_OUT, 2, 60)
        await watched.until_packets(time.monotonic(), 30)
        assert watched.states == states
        assert "ImportError" not in relay.log()
        assert "ModuleNotFoundError" not in relay.log()
        assert [await patch(client) for client in (publisher, viewer)] == [204, 204]
        assert [await delete(client) for client in (viewer, publisher)] == [200, 200]


async def test_a_worker_imports_nothing_and_opens_no_file_of_a_program(tmp_path: Path) -> None:
    modules, read = tmp_path / "modules", tmp_path / "read"
    modules.mkdir()
    (modules / "sitecustomize.py").write_text(WRITES_DOWN)
    environment = {"PYTHONPATH": f"{modules}:{ROOT / 'src'}", "READ_FROM_DISK": str(read)}
    config = "[limits]\nm_lines = 31\n"
    async with (
        Relay(workers=2, settings=SETTINGS, config=config, environment=environment) as relay,
        watched_call(relay) as (publisher, viewer, watched),
    ):
        await relay.until_logged("all workers serve")
        served_at = time.monotonic()
        # Whatever is asked, of both workers.
        for _ in range(8):
            for path in ("/", "/session.js", "/none", "/whip/hall", "/whip/%ff"):
                request("GET", f"{relay.url}{path}")
            for path in ("/metrics", "/readyz?all", "/rooms", "/rooms/hall", "/slots", "/sessions/none"):
                request("GET", f"{relay.admin}{path}")
            request("POST", f"{relay.url}/whip/hall", "no offer", {"Content-Type": "application/sdp"})
            request("POST", f"{relay.url}/whep/hall", OFFER, {"Content-Type": "application/sdp"})
            request("POST", f"{relay.url}/whep/hall", "{}", {"Content-Type": "application/json"})
            request("OPTIONS", f"{relay.url}/whep/hall")
        assert (await move(relay, publisher.session_url, 1))[0] in (200, 409)
        before = pid_by_slot(relay)
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
            await until_gone(pid, 30)
        await until_served_by_others(relay, before)
        before = pid_by_slot(relay)
        relay.config_path.write_text("[limits]\nm_lines = 30\n")
        os.kill(relay.pid, signal.SIGHUP)
        await relay.until_logged(ROLLED_OUT, 1, 60)
        await until_served_by_others(relay, before)
        os.kill(relay.pid, signal.SIGTTOU)
        await relay.until_logged("the slot is empty", 1, 60)
        os.kill(relay.pid, signal.SIGUSR1)
        await watched.until_packets(time.monotonic(), 30)
        assert [await delete(client) for client in (viewer, publisher)] == [200, 200]
        master = relay.pid
    lines = [line.split(" ", 3) for line in read.read_text().splitlines()]
    assert [line for line in lines if int(line[0]) == master], "the hook is there"
    late = [
        (("worker", "master")[int(pid) == master], event, what)
        for pid, at, event, what in lines
        if int(pid) != master or float(at) > served_at
    ]
    assert sorted(set(late)) == []


async def test_an_upgrade_replaces_a_program_one_of_whose_workers_cannot_start(program: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    main = program / "millrace" / "workers" / "main.py"
    good = main.read_text()
    main.write_text(good + REFUSES_SLOT_1.format(gate=str(gate)))
    async with (
        Relay(workers=2, settings=SETTINGS, root=program) as relay,
        watched_call(relay, audio=False, viewer_slot=0) as (_, _, watched),
    ):
        states = list(watched.states)
        gate.touch()
        os.kill(pid_by_slot(relay)[1], signal.SIGKILL)
        await relay.until_logged("slot 1 is down")
        main.write_text(good)
        os.kill(relay.pid, signal.SIGUSR2)
        await relay.until_logged("upgrade: the new program takes over", 1, 60)
        await relay.until_logged("all workers serve", 2, 60)
        await relay.until_logged(ROLLED_OUT, 1, 60)
        await relay.until_ready(60)
        await watched.until_packets(time.monotonic(), 30)
        assert watched.states == states


async def test_a_configuration_reaches_the_others_while_a_worker_cannot_start(program: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with (program / "millrace" / "workers" / "main.py").open("a") as main:
        main.write(REFUSES_SLOT_1.format(gate=str(gate)))
    async with Relay(workers=2, settings=SETTINGS, config="[limits]\nm_lines = 31\n", root=program) as relay:
        gate.touch()
        os.kill(pid_by_slot(relay)[1], signal.SIGKILL)
        await relay.until_logged("slot 1 is down")
        first = pid_by_slot(relay)[0]
        relay.config_path.write_text("[limits]\nm_lines = 30\n")
        os.kill(relay.pid, signal.SIGHUP)
        await relay.until_logged(ROLLED_OUT, 1, 60)
        assert pid_by_slot(relay)[0] != first
        assert "the old one is in force" not in relay.log()
        gate.unlink()
        await relay.until_logged("slot 1 serves again")
        await relay.until_ready(60)
