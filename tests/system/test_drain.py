"""SIGTERM: nobody opens a room, calls go on until the deadline, then clients hear goodbye."""

import asyncio
import os
import re
import signal
import time

import aiohttp

from tests.clients.aiortc_client import Publisher, Viewer
from tests.system.relay_process import Relay

ROOM_FOR_A_LATE_DEADLINE = {"workers.drain_seconds": "600"}


async def until_draining(relay: Relay) -> str:
    """Until every worker knows: one of them then says it for all."""
    async with asyncio.timeout(20), aiohttp.ClientSession() as http:
        while True:
            async with http.get(f"{relay.admin}/readyz") as answer:
                text = await answer.text()
                if answer.status == 503 and "draining" in text:
                    return text
            await asyncio.sleep(0.01)


async def refusals(relay: Relay) -> list[tuple[int, str, bool]]:
    """What twenty POSTs get, each on a connection of its own."""
    found = []
    for _ in range(20):
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{relay.url}/whip/new", data="v=0", headers={"Content-Type": "application/sdp"}) as answer,
        ):
            found.append(
                (answer.status, (await answer.json(content_type=None))["type"], "Retry-After" in answer.headers)
            )
    return found


async def test_calls_go_on_and_no_room_is_opened_until_the_last_one_ends() -> None:
    async with (
        Relay(workers=2, settings=ROOM_FOR_A_LATE_DEADLINE) as relay,
        Publisher(f"{relay.url}/whip/hall") as publisher,
        Viewer(f"{relay.url}/whep/hall") as viewer,
    ):
        await publisher.open(0)
        await viewer.open(1)
        await viewer.until_frames(10)
        os.kill(relay.pid, signal.SIGTERM)
        await until_draining(relay)
        # Each worker looks at the table ten times a second.
        async with asyncio.timeout(20):
            while (answers := set(await refusals(relay))) != {(503, "urn:millrace:problem:draining", True)}:
                assert {status for status, _, _ in answers} <= {400, 503}
        await viewer.until_frames(len(viewer.frames) + 30)
        async with aiohttp.ClientSession() as http, http.get(f"{relay.admin}/metrics") as answer:
            deadlines = re.findall(r'millrace_drain_deadline_seconds\{slot="\d"\} (\S+)', await answer.text())
        assert len(deadlines) == 2
        assert all(float(each) > 1e9 for each in deadlines)
        await viewer.close()
        async with Viewer(f"{relay.url}/whep/hall") as reloaded:
            await reloaded.open(1)
            await reloaded.until_frames(10)
        await asyncio.sleep(0.3)
        assert len(relay.worker_pids()) == 2, "the publisher is still there"
        await publisher.close()
        await relay.until_ended(30)
        assert "stopping: no session is left" in relay.log()


async def test_a_worker_that_dies_is_replaced_by_one_that_drains_too() -> None:
    async with (
        Relay(workers=2, settings=ROOM_FOR_A_LATE_DEADLINE) as relay,
        Publisher(f"{relay.url}/whip/hall") as publisher,
    ):
        await publisher.open(0)
        await publisher.connected()
        os.kill(relay.pid, signal.SIGTERM)
        await until_draining(relay)
        victim = next(pid for pid in relay.worker_pids() if f"slot=1 pid={pid} " in relay.log())
        os.kill(victim, signal.SIGKILL)
        async with asyncio.timeout(30):
            while victim in relay.worker_pids() or len(relay.worker_pids()) != 2:
                await asyncio.sleep(0.01)
        async with asyncio.timeout(30):
            while set(await refusals(relay)) != {(503, "urn:millrace:problem:draining", True)}:
                pass


async def test_sessions_are_closed_politely_at_the_deadline() -> None:
    async with (
        Relay(workers=2, settings={"workers.drain_seconds": "2"}) as relay,
        Publisher(f"{relay.url}/whip/hall") as publisher,
    ):
        await publisher.open()
        await publisher.connected()
        asked_at = time.monotonic()
        os.kill(relay.pid, signal.SIGTERM)
        await relay.until_ended(30)
        # The default would be half a minute.
        assert 1.5 < time.monotonic() - asked_at < 15
        publisher.session_url = ""
        async with asyncio.timeout(20):
            while publisher.connection.connectionState != "closed":
                await asyncio.sleep(0.01)


async def test_ctrl_c_ends_a_drain() -> None:
    async with (
        Relay(workers=1, settings=ROOM_FOR_A_LATE_DEADLINE) as relay,
        Publisher(f"{relay.url}/whip/hall") as publisher,
    ):
        await publisher.open()
        await publisher.connected()
        os.kill(relay.pid, signal.SIGTERM)
        await until_draining(relay)
        await relay.stop()
        publisher.session_url = ""
