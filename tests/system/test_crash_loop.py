"""A worker that crashes again and again, as one does of which a session is the cause: its own sessions are given up,
and nobody else's call. Read next: `master/slots.py`, which decides.
"""

import asyncio
import os
import signal
import time

from tests.clients.aiortc_client import Publisher, Viewer
from tests.system.asking import patch
from tests.system.relay_process import Relay
from tests.system.watched import Watched
from tests.system.worker_pids import pid_by_slot, until_gone

QUICK_SECONDS = 5
SETTINGS = {
    "workers.quick_death_seconds": str(QUICK_SECONDS),
    "workers.crash_limit": "4",
    "workers.respawn_backoff_ms": "1",
    "workers.respawn_backoff_limit_ms": "50",
}


async def test_a_crash_loop_costs_the_sessions_of_its_slot_and_no_other_call() -> None:
    async with (
        Relay(workers=2, settings=SETTINGS) as relay,
        Publisher(f"{relay.url}/whip/lost") as lost,
        Publisher(f"{relay.url}/whip/kept") as kept,
        Viewer(f"{relay.url}/whep/kept") as viewer,
        Publisher(f"{relay.url}/whip/lost") as again,
    ):
        await lost.open(0)
        await kept.open(1)
        await viewer.open(1)
        watched = Watched(viewer)
        await viewer.until_frames(30)
        # Whoever has served for so long is no part of a crash loop.
        await asyncio.sleep(QUICK_SECONDS)
        began = time.monotonic()
        for _ in range(6):
            pid = pid_by_slot(relay)[0]
            os.kill(pid, signal.SIGSEGV)
            await until_gone(pid, 20)
            async with asyncio.timeout(20):
                while pid_by_slot(relay)[0] == pid:
                    await asyncio.sleep(0.002)
        await relay.until_logged("sessions of slot 0 are dropped")
        await relay.until_logged("crash loop in slot 0, retried with back-off: worker 0 died 4 times in a row")
        await relay.until_ready()
        assert await patch(lost) == 404
        await again.open(0)
        await again.connected()
        await watched.until_packets(time.monotonic(), 30)
        assert watched.gap(began) < 5
        assert [await patch(kept), await patch(viewer)] == [204, 204]
