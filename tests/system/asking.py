"""What tests ask of a relay over HTTP: counters, a session's URL, moves. Read next: `tests/system/relay_process.py`."""

import asyncio
import json
import re

import aiohttp

from tests.clients.aiortc_client import Client
from tests.clients.raw_client import request
from tests.system.relay_process import Relay

TOO_LATE = (409, "not moved not taken")
"""The other worker got no time within the 150 ms that a move waits for it: so it is on a machine that stands still."""


def metrics(relay: Relay) -> dict[str, float]:
    page = request("GET", f"{relay.admin}/metrics").body
    lines = (line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}


async def counter(relay: Relay, name: str) -> int:
    async with aiohttp.ClientSession() as http, http.get(f"{relay.admin}/metrics") as answer:
        found = re.findall(rf"^{re.escape(name)} (\S+)$", await answer.text(), re.MULTILINE)
        assert found, f"no series is called {name}"
        return int(float(found[0]))


async def patch(client: Client) -> int:
    """A trickled end of candidates, by a connection of its own: any worker may get it."""
    sdp = client.connection.localDescription.sdp
    credentials = [line for line in sdp.splitlines() if line.startswith(("a=ice-ufrag:", "a=ice-pwd:"))][:2]
    mid = next(line for line in sdp.splitlines() if line.startswith("a=mid:"))
    lines = [*credentials, "m=audio 9 UDP/TLS/RTP/SAVPF 0", mid, "a=end-of-candidates", ""]
    headers = {"Content-Type": "application/trickle-ice-sdpfrag", "If-Match": client.etag}
    async with (
        aiohttp.ClientSession() as http,
        http.patch(client.session_url, data="\r\n".join(lines), headers=headers) as answer,
    ):
        return answer.status


async def delete(client: Client) -> int:
    async with aiohttp.ClientSession() as http, http.delete(client.session_url) as answer:
        client.session_url = ""
        return answer.status


async def move(relay: Relay, session_url: str, slot: int) -> tuple[int, str]:
    """The status, and what came of it."""
    session = session_url.rpartition("/")[2]
    answer = await asyncio.to_thread(request, "POST", f"{relay.admin}/sessions/{session}/move?slot={slot}")
    said = json.loads(answer.body)
    return answer.status, said.get("outcome") or said["title"]


async def until_moved(relay: Relay, session_url: str, slot: int) -> int:
    """Moves it; says how often that came too late, which it may three times."""
    too_late = 0
    while (came := await move(relay, session_url, slot)) == TOO_LATE and too_late < 3:
        too_late += 1
    assert came == (200, "moved")
    return too_late
