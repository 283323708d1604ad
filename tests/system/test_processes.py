"""What happens to processes: they start, die, are replaced and stop, and leave nothing."""

import asyncio
import os
import signal
import time
from pathlib import Path

import aiohttp
import pytest
from aiortc import RTCSessionDescription

from millrace.relay.membership.remote_worker import HOLD_SECONDS
from tests.clients.aiortc_client import Publisher, Viewer
from tests.clients.raw_client import RawClient
from tests.system.relay_process import Relay
from tests.system.worker_pids import pid_by_slot, until_gone


async def rooms(relay: Relay, seconds: float = 5.0) -> list[str]:
    """What is published where, as a worker says it that answers in time: the dead one's listener keeps connections."""
    while True:
        try:
            timeout = aiohttp.ClientTimeout(total=seconds)
            async with aiohttp.ClientSession(timeout=timeout) as http, http.get(f"{relay.admin}/rooms") as answer:
                return [room["name"] for room in await answer.json() if room["publishers"]]
        except TimeoutError:
            continue


async def test_a_killed_worker_is_replaced_and_who_was_in_its_handshake_goes_everywhere() -> None:
    async with Relay(workers=2) as relay:
        with RawClient(f"{relay.url}/whip/lost") as lost:
            await _a_killed_worker_is_replaced(relay, lost)


async def _a_killed_worker_is_replaced(relay: Relay, lost: RawClient) -> None:
    async with (
        Publisher(f"{relay.url}/whip/adopted") as adopted,
        Publisher(f"{relay.url}/whip/awaited") as awaited,
        Publisher(f"{relay.url}/whip/other") as other,
    ):
        await adopted.open(0)
        await adopted.connected()
        await other.open(1)
        await awaited.connection.setLocalDescription(await awaited.connection.createOffer())
        answer = await awaited._post(0)
        await asyncio.to_thread(lambda: lost.post(0).check())
        lost.say_hello()
        assert await asyncio.to_thread(lost.until, lambda datagram: 20 <= datagram[0] < 64)
        async with asyncio.timeout(15):
            while await rooms(relay) != ["adopted", "awaited", "lost", "other"]:
                await asyncio.sleep(0.01)
        victim = pid_by_slot(relay)[0]
        os.kill(victim, signal.SIGKILL)
        killed_at = time.monotonic()
        # `test_rooms.py` and `test_master.py` hold both to half a second together, and try more than once.
        await until_gone(victim, 5)
        async with asyncio.timeout(15):
            while len(relay.worker_pids()) != 2:
                await asyncio.sleep(0.002)
        # As soon as the successor has said who is left: some 0.5 s, and longer where many share few cores.
        async with asyncio.timeout(15):
            while (seen := await rooms(relay, 0.5)) != ["adopted", "awaited", "other"]:
                if time.monotonic() < killed_at + HOLD_SECONDS:
                    assert seen == ["adopted", "awaited", "lost", "other"], "who is adopted is never missing"
                await asyncio.sleep(0.005)
        print(f"gone everywhere {time.monotonic() - killed_at:.2f} s after the death")
        await relay.until_ready()
        # Any worker may be asked, and each hears of the end for itself.
        agreeing = 0
        async with asyncio.timeout(15):
            while agreeing < 10:
                seen = await rooms(relay)
                assert {"adopted", "awaited", "other"} <= {*seen}, "who is adopted is never missing"
                agreeing = agreeing + 1 if seen == ["adopted", "awaited", "other"] else 0
        # Whose handshake had not begun connects to the successor, by the answer of the one before.
        await awaited.connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        await awaited.connected()


@pytest.mark.timing
async def test_calls_of_another_worker_go_on_while_one_dies() -> None:
    async with (
        Relay(workers=2, settings={"workers.quick_death_seconds": "1"}) as relay,
        Publisher(f"{relay.url}/whip/hall") as publisher,
        Viewer(f"{relay.url}/whep/hall") as viewer,
    ):
        await publisher.open(1)
        await viewer.open(1)
        await viewer.until_frames(60)
        gaps: list[float] = []
        # At 30 pictures a second, from an encoder and a decoder that share this process's time.
        while len(gaps) < 10 and min(gaps, default=1) >= 0.25:
            since = asyncio.get_running_loop().time()
            os.kill(pid_by_slot(relay)[0], signal.SIGKILL)
            await viewer.until_frames(len(viewer.frames) + 90)
            await relay.until_ready()
            gaps.append(viewer.longest_gap(since))
        print("between two pictures of another worker's call (s):", gaps)
        assert min(gaps) < 0.25


async def test_sigterm_stops_like_ctrl_c() -> None:
    async with Relay(workers=3) as relay:
        os.kill(relay.pid, signal.SIGTERM)
        await relay.stop()


async def test_clients_hear_goodbye_when_the_relay_stops() -> None:
    async with Relay(workers=2) as relay, Publisher(f"{relay.url}/whip/hall") as publisher:
        await publisher.open()
        await publisher.connected()
        await relay.stop()
        publisher.session_url = ""
        async with asyncio.timeout(20):
            while publisher.connection.connectionState != "closed":
                await asyncio.sleep(0.01)


async def test_workers_end_when_their_master_is_killed() -> None:
    async with Relay(workers=2) as relay:
        os.kill(relay.pid, signal.SIGKILL)
        async with asyncio.timeout(30):
            while relay.processes():
                await asyncio.sleep(0.01)
        relay.expected_status = -signal.SIGKILL
        for path in relay.runtime.iterdir():
            path.unlink()


async def test_the_engine_comes_before_its_control_plane_on_their_core() -> None:
    async with Relay(workers=1) as relay:
        pid = pid_by_slot(relay)[0]
        tasks = Path(f"/proc/{pid}/task")
        names = {int(task.name): (task / "comm").read_text().strip() for task in tasks.iterdir()}
        engine = next(thread for thread, name in names.items() if name == "engine")
        # Once it serves, which it says itself; whoever asks whether it is ready may be told a moment before.
        async with asyncio.timeout(30):
            while os.sched_getscheduler(pid) != os.SCHED_BATCH:
                await asyncio.sleep(0.01)
            while (lead := nice(pid) - nice(engine)) != 5:
                await asyncio.sleep(0.01)
        assert lead == 5
        assert os.sched_getscheduler(engine) == os.SCHED_OTHER


def nice(thread: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, thread)
