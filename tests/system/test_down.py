"""One of two workers cannot start any more, or hangs: whoever is new is served by the other, also who had been given to
the one that is gone. Read next: `master/slots.py`, which says when a slot is down.
"""

import asyncio
import ctypes
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from tests.clients.aiortc_client import Publisher, Viewer
from tests.clients.raw_client import request
from tests.system.asking import delete, patch
from tests.system.posts import OFFER
from tests.system.relay_process import ROOT, Relay
from tests.system.watched import watched_call
from tests.system.worker_pids import pid_by_slot

SETTINGS = {"workers.quick_death_seconds": "1", "workers.respawn_backoff_limit_ms": "200", "workers.boot_seconds": "5"}
DOES = {
    "it ends at its start": "return Exit.BOOT_FAILED",
    "it hangs at its start": "import time; time.sleep(1000)",
}
MISBEHAVES = """

def run(boot: Boot, begin=run) -> int:
    import os
    if boot.slot == 1 and os.path.exists({gate!r}):
        {does}
    return begin(boot)
"""
ASKED = 24
"""On connections of their own: one in eight million times all would go to the same of two workers."""


@asynccontextmanager
async def relay_with_a_gate(folder: Path, does: str, **settings: str) -> AsyncIterator[tuple[Relay, Path]]:
    """While the gate is there, no worker of slot 1 comes up."""
    leave = shutil.ignore_patterns("engine", "__pycache__")
    shutil.copytree(ROOT / "src" / "millrace", folder / "program" / "millrace", ignore=leave)
    gate = folder / "gate"
    with (folder / "program" / "millrace" / "workers" / "main.py").open("a") as main:
        main.write(MISBEHAVES.format(gate=str(gate), does=does))
    async with Relay(workers=2, settings=SETTINGS | settings, root=folder / "program") as relay:
        yield relay, gate


_LIBC = ctypes.CDLL(None, use_errno=True)
_SEIZE, _INTERRUPT = 0x4206, 0x4207
_ALL_THREADS = 0x40000000
"""ptrace(2), and __WALL of waitpid(2)."""


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stops all threads as a debugger does, or a disk that hangs: no SIGCONT has them go on, and no SIGABRT ends them.
    Ends the process afterwards.
    """
    threads = [int(each.name) for each in Path(f"/proc/{pid}/task").iterdir()]
    for thread in threads:
        for what in (_SEIZE, _INTERRUPT):
            assert _LIBC.ptrace(what, thread, None, None) == 0, os.strerror(ctypes.get_errno())
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        for thread in sorted(threads, reverse=True):
            while not os.WIFSIGNALED(os.waitpid(thread, _ALL_THREADS)[1]):
                pass


def all_kinds(relay: Relay, times: int = ASKED) -> Counter[tuple[str, int]]:
    """Statuses of GET, POST, metrics and readiness; a request that nobody takes has none, and fails."""
    offer = {"Content-Type": "application/sdp"}
    asks: dict[str, Callable[[], int]] = {
        "page": lambda: request("GET", f"{relay.url}/").status,
        "post": lambda: request("POST", f"{relay.url}/whep/hall", OFFER, offer).status,
        "metrics": lambda: request("GET", f"{relay.admin}/metrics").status,
        "readyz": lambda: request("GET", f"{relay.admin}/readyz").status,
    }
    return Counter((name, ask()) for name, ask in asks.items() for _ in range(times))


ALL_SERVED = {("page", 200): ASKED, ("post", 201): ASKED, ("metrics", 200): ASKED, ("readyz", 200): ASKED}


@pytest.mark.parametrize("steering", ["auto", "handover"])
@pytest.mark.parametrize("does", DOES.values(), ids=DOES)
async def test_what_is_new_goes_to_who_serves_and_the_slots_sessions_wait_for_its_next_worker(
    tmp_path: Path, does: str, steering: str
) -> None:
    async with (
        relay_with_a_gate(tmp_path, does, **{"media.steering": f'"{steering}"'}) as (relay, gate),
        watched_call(relay, audio=False, viewer_slot=0) as (_, _, watched),
        Publisher(f"{relay.url}/whip/other", audio=False) as waiting,
    ):
        await waiting.open(1)
        await waiting.connected()
        gate.touch()
        # Requests that come while nobody knows yet wait in the queue of the slot's listener.
        os.kill(pid_by_slot(relay)[1], signal.SIGKILL)
        early = [asyncio.create_task(asyncio.to_thread(all_kinds, relay, 4)) for _ in range(4)]
        for asked in early:
            assert set(await asked) == set(ALL_SERVED)
        await relay.until_logged("slot 1 is down")
        assert await asyncio.to_thread(all_kinds, relay) == ALL_SERVED
        # New calls connect, wherever the kernel's hash would have put them, and old ones go on.
        for number in range(4):
            async with (
                Publisher(f"{relay.url}/whip/new-{number}", audio=False) as publisher,
                Viewer(f"{relay.url}/whep/new-{number}", audio=False) as viewer,
            ):
                await publisher.open()
                await viewer.open()
                await viewer.until_frames(3, 60)
        await watched.until_packets(time.monotonic(), 30)
        gate.unlink()
        await relay.until_logged("slot 1 serves again")
        await relay.until_ready(60)
        # Its session is still there.
        assert await patch(waiting) == 204
        assert await delete(waiting) == 200
        assert await asyncio.to_thread(all_kinds, relay) == ALL_SERVED


async def test_a_worker_that_hangs_is_stood_in_for_before_it_is_replaced() -> None:
    # It is not replaced as long as its abort may take.
    settings = SETTINGS | {"workers.beat_seconds": "2", "workers.abort_seconds": "60"}
    async with Relay(workers=2, settings=settings) as relay:
        await relay.until_logged("all workers serve")
        with stopped(pid_by_slot(relay)[1]):
            await relay.until_logged("slot 1 is down")
            assert await asyncio.to_thread(all_kinds, relay) == ALL_SERVED
        await relay.until_logged("slot 1 serves again")


async def test_orphans_stand_in_for_each_other() -> None:
    settings = SETTINGS | {"workers.beat_seconds": "2"}
    async with (
        Relay(workers=2, settings=settings) as relay,
        Publisher(f"{relay.url}/whip/hall", audio=False) as publisher,
    ):
        await publisher.open(0)
        await publisher.connected()
        await relay.kill_master()
        os.kill(pid_by_slot(relay)[1], signal.SIGKILL)
        statuses = {request("GET", f"{relay.url}/").status for _ in range(ASKED)}
        assert statuses == {200}
        await relay.start()
        await relay.until_ready(60)
        assert await patch(publisher) == 204
