"""A NAT forgets a client in the middle of its call. GStreamer, which sends no check once it is connected, is found by
its media; its calls go on without a request.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.peers import LAN, relay_token
from tests.clients.aiortc_client import Publisher, Viewer
from tests.clients.raw_client import request
from tests.system.asking import metrics
from tests.system.namespace import ADDRESS
from tests.system.nat import CLIENT_ADDRESS, Nat, behind_nat
from tests.system.relay_process import Relay
from tests.system.watched import Watched

CLIENTS = Path(__file__).parents[1] / "clients"
DEBIAN_PYTHON = "/usr/bin/python3"
PICTURES = 750
"""That the viewer is to decode, 30 in a second: more than come before the NAT forgets it."""
LIMIT_SECONDS = 25.0
"""Consent would last for 30."""

pytestmark = [pytest.mark.netns, pytest.mark.timing(cores=1)]


@pytest.fixture
async def relay(namespace: None) -> AsyncIterator[Relay]:
    async with Relay(settings=LAN | {"http.bind": f'["127.0.0.1", "{ADDRESS}"]'}) as relay:
        yield relay


async def gstreamer(nat: Nat, script: str, relay: Relay, *arguments: str) -> asyncio.subprocess.Process:
    protocol = "whip" if script == "gst_publish.py" else "whep"
    url = f"http://{ADDRESS}:{relay.http_port}/{protocol}/hall"
    command = nat.inside(DEBIAN_PYTHON, str(CLIENTS / script), url, *arguments, relay_token(relay))
    return await asyncio.create_subprocess_exec(*command, stdout=sys.stderr)


async def remote_port(relay: Relay, session: str) -> int | None:
    """Where media of the session goes."""
    answered = await asyncio.to_thread(request, "GET", f"{relay.admin}/sessions/{session}")
    found: dict[str, Any] = json.loads(answered.body)
    if answered.status != 200 or found["transport"]["remote_address"] is None:
        return None
    host, _, port = found["transport"]["remote_address"].rpartition(":")
    assert host == CLIENT_ADDRESS
    return int(port)


async def session_behind(relay: Relay, nat: Nat, publishes: bool) -> str:
    """The session of the only client that is behind the NAT, once it is connected and in its call for a while."""
    async with asyncio.timeout(90):
        while True:
            answered = await asyncio.to_thread(request, "GET", f"{relay.admin}/rooms/hall")
            sessions = json.loads(answered.body)["sessions"] if answered.status == 200 else []
            for session in (one["session"] for one in sessions if one["publishes"] == publishes):
                if await remote_port(relay, session) in nat.ports:
                    return str(session)
            await asyncio.sleep(0.05)


async def until_asked_for_consent(relay: Relay) -> None:
    """Both clients have been, at least twice, 4 to 6 s apart. It is known then who sends no checks."""
    before = metrics(relay)["millrace_proofs_answered_total"]
    async with asyncio.timeout(60):
        while metrics(relay)["millrace_proofs_answered_total"] < before + 5:
            await asyncio.sleep(0.05)


async def is_followed(relay: Relay, session: str, nat: Nat) -> float:
    """Has the NAT forget the client; how many seconds it took until media went to its new port."""
    nat.forget()
    began = time.monotonic()
    async with asyncio.timeout(LIMIT_SECONDS):
        while await remote_port(relay, session) not in nat.ports:
            await asyncio.sleep(0.02)
    return time.monotonic() - began


async def test_a_gstreamer_publisher_goes_on_at_the_port_that_its_nat_gives_it(relay: Relay) -> None:
    with behind_nat(relay.media_port) as nat:
        process = await gstreamer(nat, "gst_publish.py", relay, "300", "vp8")
        try:
            session = await session_behind(relay, nat, publishes=True)
            async with Viewer(f"{relay.url}/whep/hall", relay_token(relay)) as viewer:
                await viewer.open(1 - int(session[:2], 16))
                watched = Watched(viewer)
                await viewer.until_frames(60)
                await until_asked_for_consent(relay)
                began = time.monotonic()
                took = await is_followed(relay, session, nat)
                await watched.until_packets(time.monotonic(), 200)
                print(f"publisher followed after {took:.2f} s, gap {watched.gap(began):.3f} s")
                assert metrics(relay)["millrace_unknown_sources_tried_total"] >= 1
        finally:
            process.kill()
            await process.wait()


async def test_a_gstreamer_viewer_goes_on_at_the_port_that_its_nat_gives_it(relay: Relay) -> None:
    with behind_nat(relay.media_port) as nat:
        async with Publisher(f"{relay.url}/whip/hall", relay_token(relay), audio=True) as publisher:
            await publisher.open(0)
            await publisher.connected()
            process = await gstreamer(nat, "gst_watch.py", relay, str(PICTURES), "vp8")
            try:
                session = await session_behind(relay, nat, publishes=False)
                await until_asked_for_consent(relay)
                took = await is_followed(relay, session, nat)
                print(f"viewer followed after {took:.2f} s")
                assert process.returncode is None
                assert await asyncio.wait_for(process.wait(), 120) == 0, "it has decoded all pictures"
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
