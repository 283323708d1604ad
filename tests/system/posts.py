"""Clients that only join and leave, as fast as they are answered. Read next: `tests/system/test_handover.py`."""

import asyncio
import time
from collections import Counter

import aiohttp

from tests.system.relay_process import ROOT, Relay

OFFER = (ROOT / "tests/vectors/sdp/chromium156.viewer.sdp").read_text()


class Posts:
    """Clients that come and go without a pause, on connections that they keep, or not; `async with` runs them."""

    def __init__(self, relay: Relay, clients: int = 4, keeps: bool = True, ends: bool = True) -> None:
        self._relay = relay
        self._keeps = keeps
        self._clients = clients
        self._ends = ends
        self.statuses: Counter[int | str] = Counter()
        """Of POST."""
        self.ends: Counter[int | str] = Counter()
        """Of DELETE: sessions to which nobody has connected."""
        self.opened: list[str] = []
        """The sessions, when nobody ends them."""
        self.slots: Counter[str] = Counter()
        """Whose the sessions were."""
        self.slowest = 0.0
        self.lost: list[str] = []
        """Which sessions could not be ended, when and why."""

    async def __aenter__(self) -> "Posts":
        self._goes_on = True
        self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=not self._keeps))
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
                self.slots[session.rpartition("/")[2][:2]] += 1
                self.slowest = max(self.slowest, time.monotonic() - began)
                if not self._ends:
                    self.opened.append(session)
                    continue
                async with self._http.delete(self._relay.url + session) as answer:
                    self.ends[answer.status] += 1
                    if answer.status != 200:
                        self.lost.append(f"{time.strftime('%H:%M:%S')} {session} {await answer.text()}")
            except (aiohttp.ClientError, OSError) as error:
                self.statuses[repr(error)] += 1
