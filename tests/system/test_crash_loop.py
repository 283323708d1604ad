"""A worker that crashes again and again, as one does of which a session is the cause: its own sessions are given up, and
nobody else's call ends. Read next: `master/slots.py`, which decides.
"""

import asyncio
import os
import signal
import time

from tests.clients.aiortc_client import Publisher
from tests.system.asking import patch
from tests.system.relay_process import Relay
from tests.system.watched import watched_call
from tests.system.worker_pids import pid_by_slot, until_gone

QUICK_SECONDS = 5
SETTINGS = {
    "workers.quick_death_seconds": str(QUICK_SECONDS),
    "workers.crash_limit": "4",
    "workers.respawn_backoff_ms": "1",
    "workers.respawn_backoff_limit_ms": "50",
}


async def test_a_crash_loop_costs_the_sessions_of_its_slot_and_no_other_call() -> None:
    async with Relay(workers=2, settings=SETTINGS) as relay:
        lost = Publisher(f"{relay.url}/whip/lost")
        await lost.open(0)
        await lost.connected()
        async with watched_call(relay, "kept", (1, 1)) as watched:
            # Whoever has served for so long is no part of a crash loop.
            await asyncio.sleep(QUICK_SECONDS)
            began = time.monotonic()
            for _ in range(6):
                pid = await pid_of(relay, 0)
                os.kill(pid, signal.SIGSEGV)
                await until_gone(pid, 20)
            await relay.until_logged("its sessions are given up")
            await relay.until_logged("the others go on, and it is tried again: worker 0 died 4 times in a row")
            await relay.until_ready()
            assert await patch(lost) == 404
            again = Publisher(f"{relay.url}/whip/lost")
            await again.open(0)
            await again.connected()
            await watched.until_packets(time.monotonic(), 30)
            assert watched.gap(began) < 5
            assert await patch(watched.viewer) == 204
            await again.close()
        await lost.close()


async def pid_of(relay: Relay, slot: int) -> int:
    """Of the worker that lives there now, or next."""
    async with asyncio.timeout(20):
        while slot not in (pids := pid_by_slot(relay)):
            await asyncio.sleep(0.01)
    return pids[slot]
