"""A worker lets go and a successor takes over: no client has to do anything, and no request fails."""

import asyncio
import itertools
import os
import signal
import time
from collections import Counter

import aiohttp
import pytest

from tests.clients.aiortc_client import Publisher, Viewer
from tests.system.relay_process import ROOT, Relay
from tests.system.test_adoption import Watched, counter, delete, patch, percentile, told
from tests.system.test_processes import pid_by_slot, until_gone

OFFER = (ROOT / "tests/vectors/sdp/chromium156.viewer.sdp").read_text()


class Posts:
    """Clients that come and go without a pause, on connections that they keep; `async with` runs them."""

    def __init__(self, relay: Relay, clients: int = 4) -> None:
        self._relay = relay
        self._clients = clients
        self.statuses: Counter[int | str] = Counter()
        """Of POST."""
        self.ends: Counter[int | str] = Counter()
        """Of DELETE: a session whose client had not connected yet is closed when its worker changes."""
        self.slowest = 0.0

    async def __aenter__(self) -> "Posts":
        self._goes_on = True
        self._http = aiohttp.ClientSession()
        self._tasks = [asyncio.create_task(self._run(number)) for number in range(self._clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._goes_on = False
        await asyncio.gather(*self._tasks)
        await self._http.close()

    async def _run(self, number: int) -> None:
        headers = {"Content-Type": "application/sdp"}
        while self._goes_on:
            began = time.monotonic()
            try:
                url = f"{self._relay.url}/whep/posts-{number}"
                async with self._http.post(url, data=OFFER, headers=headers) as answer:
                    self.statuses[answer.status] += 1
                    session = answer.headers.get("Location", "")
                self.slowest = max(self.slowest, time.monotonic() - began)
                async with self._http.delete(self._relay.url + session) as answer:
                    self.ends[answer.status] += 1
            except (aiohttp.ClientError, OSError) as error:
                self.statuses[repr(error)] += 1


async def test_workers_that_let_go_one_after_the_other_are_noticed_by_nobody() -> None:
    async with Relay(workers=2, settings={"log.level": '"debug"'}) as relay:
        publishers = [Publisher(f"{relay.url}/whip/room-{slot}") for slot in (0, 1)]
        viewers = [Viewer(f"{relay.url}/whep/room-{room}") for room in (0, 1)]
        for publisher, slot in zip(publishers, (0, 1), strict=True):
            await publisher.open(slot)
            await publisher.connected()
        for viewer, slot in zip(viewers, (0, 0), strict=True):
            await viewer.open(slot)
        watched = [Watched(viewer) for viewer in viewers]
        for viewer in viewers:
            await viewer.connected()
            await viewer.until_frames(30)
        states = [list(one.states) for one in watched]
        gaps: list[float] = []
        async with Posts(relay) as posts:
            for _, slot in itertools.product(range(2), (0, 1)):
                pid = pid_by_slot(relay)[slot]
                told_at = time.monotonic()
                os.kill(pid, signal.SIGUSR2)
                await until_gone(pid, 5)
                for one in watched:
                    await one.until_packets(time.monotonic() + 0.5, 30)
                    gaps.append(one.gap(told_at))
                await relay.until_ready()
                assert [await patch(client) for client in (*publishers, *viewers)] == [204] * 4
        print(told("let go", gaps), f"slowest POST {posts.slowest * 1000:.0f} ms", posts.statuses, posts.ends)
        print(*[line for line in relay.log().splitlines() if "after_ms" in line][-4:], sep="\n")
        assert set(posts.statuses) == {201}
        assert set(posts.ends) <= {200, 404}
        assert percentile(gaps, 0.5) < 2
        assert [one.states for one in watched] == states
        assert relay.log().count("a worker let go of its sessions") == 4
        assert await counter(relay, "millrace_adoptions_lost_total") == pytest.approx(0, abs=8)
        assert await counter(relay, 'millrace_drops_total{reason="srtp_replay"}') == 0
        assert [await delete(client) for client in (*viewers, *publishers)] == [200] * 4
        for client in (*viewers, *publishers):
            await client.close()
