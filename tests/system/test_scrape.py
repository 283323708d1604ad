"""A scrape costs the same however many sessions there are. `MILLRACE_SESSIONS=10000` asks for as many."""

import asyncio
import os
import re
import statistics
import time

import aiohttp
import pytest

from tests.clients.aiortc_client import Publisher, Viewer
from tests.clients.raw_client import RawClient
from tests.system.relay_process import Relay

SESSIONS = int(os.environ.get("MILLRACE_SESSIONS", "500"))
ROOM = {
    "limits.sessions_per_worker": "32_768",
    "arena.sessions_per_slot": "32_768",
    # Nobody of them ever comes.
    "timeouts.ice_seconds": "3_600",
}


async def open_sessions(relay: Relay, count: int) -> None:
    """Viewers that wait in a room of their own each."""
    offer = RawClient(f"{relay.url}/whep/hall").offer()
    headers = {"Content-Type": "application/sdp"}
    rooms = iter(range(count))

    async def post_all(http: aiohttp.ClientSession) -> None:
        for room in rooms:
            async with http.post(f"{relay.url}/whep/room-{room}", data=offer, headers=headers) as answer:
                assert answer.status == 201, await answer.text()

    async with aiohttp.ClientSession() as http:
        await asyncio.gather(*(post_all(http) for _ in range(8)))


async def scrape(http: aiohttp.ClientSession, relay: Relay) -> tuple[float, str]:
    """Seconds, and the page."""
    began = time.monotonic()
    async with http.get(f"{relay.admin}/metrics") as answer:
        page = await answer.text()
    return time.monotonic() - began, page


async def test_histograms_of_a_real_call_rise_from_bound_to_bound(relay: Relay) -> None:
    async with Publisher(f"{relay.url}/whip/hall") as publisher, Viewer(f"{relay.url}/whep/hall") as viewer:
        await publisher.open(0)
        await viewer.open(1)
        await viewer.until_frames(10)
        async with aiohttp.ClientSession() as http:
            _, page = await scrape(http, relay)
    for name in ("forwarding", "handshake", "engine_late"):
        bounds = re.findall(rf'^millrace_{name}_seconds_bucket{{le="(.*)"}} (.*)$', page, re.MULTILINE)
        assert [float(le) for le, _ in bounds] == sorted(float(le) for le, _ in bounds)
        counts = [float(count) for _, count in bounds]
        assert counts == sorted(counts)
        assert counts[-1] == float(re.findall(rf"^millrace_{name}_seconds_count (.*)$", page, re.MULTILINE)[0]) > 0


@pytest.mark.timing
async def test_a_scrape_takes_less_than_50_ms() -> None:
    async with Relay(workers=2, settings=ROOM) as relay:
        await open_sessions(relay, SESSIONS)
        async with aiohttp.ClientSession() as http:
            found = [await scrape(http, relay) for _ in range(20)]
        page = found[-1][1]
        open_now = sum(
            float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith("millrace_transp")
        )
        assert open_now == SESSIONS
        times = [seconds for seconds, _ in found]
        print(
            f"{SESSIONS} sessions: {statistics.median(times) * 1000:.1f} ms a scrape, {max(times) * 1000:.1f} at most"
        )
        # What it costs, not what a busy machine adds.
        assert min(times) < 0.05
