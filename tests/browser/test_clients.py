"""Publishers that are no browsers, watched in Chromium on another worker: ffmpeg and GStreamer as they come."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.browser.browser import Browser
from tests.browser.peers import Peer, assert_seen_and_heard, hold, open_page, publish, relay_token, watch
from tests.clients.aiortc_client import Viewer
from tests.clients.ffmpeg_publish import publish_with_ffmpeg
from tests.system.relay_process import Relay

CLIENTS = Path(__file__).parents[1] / "clients"
DEBIAN_PYTHON = "/usr/bin/python3"


@contextlib.asynccontextmanager
async def publish_with_gstreamer(relay: Relay, codec: str) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        DEBIAN_PYTHON,
        str(CLIENTS / "gst_publish.py"),
        f"{relay.url}/whip/hall",
        "300",
        codec,
        relay_token(relay),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 60) == b"connected\n"
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def published_slot(relay: Relay, seconds: float = 60) -> int:
    """The worker that the client in the room happened to reach."""
    async with asyncio.timeout(seconds):
        while True:
            async with aiohttp.ClientSession() as http, http.get(f"{relay.admin}/rooms") as answer:
                for room in await answer.json():
                    for publisher in room["publishers"]:
                        if len(publisher["tracks"]) == 2:
                            return int(publisher["session"][:2], 16)
            await asyncio.sleep(0.05)


async def see(viewer: Peer, codec: str) -> None:
    print(await viewer.first_frame())
    seen = await hold(viewer)
    assert seen["video"]["codec"] == f"video/{codec}"
    assert_seen_and_heard(seen)


async def hear_and_see_with_aiortc(relay: Relay, slot: int) -> None:
    async with Viewer(f"{relay.url}/whep/hall", relay_token(relay) or None) as viewer:
        await viewer.open(slot)
        await viewer.until_frames(60)
        assert max(viewer.loudness) > 100


@pytest.mark.timing(cores=1)
@pytest.mark.parametrize("profile", ["baseline", "high"])
async def test_chromium_and_aiortc_see_and_hear_ffmpeg(relay: Relay, chromium: Browser, profile: str) -> None:
    await open_page(chromium, relay)
    async with publish_with_ffmpeg(f"{relay.url}/whip/hall", seconds=300, profile=profile):
        slot = 1 - await published_slot(relay)
        await see(await watch(chromium, relay, slot=slot), "H264")
        await hear_and_see_with_aiortc(relay, slot)


@pytest.mark.timing(cores=1)
@pytest.mark.netns
async def test_chromium_and_aiortc_see_and_hear_gstreamer(lan_relay: Relay, chromium: Browser) -> None:
    await open_page(chromium, lan_relay)
    async with publish_with_gstreamer(lan_relay, "vp8"):
        slot = 1 - await published_slot(lan_relay)
        await see(await watch(chromium, lan_relay, slot=slot), "VP8")
        await hear_and_see_with_aiortc(lan_relay, slot)


async def see_and_hear_with_gstreamer(relay: Relay, codec: str) -> None:
    """Returns when GStreamer has 90 pictures and as many packets of sound."""
    url, token = f"{relay.url}/whep/hall", relay_token(relay)
    viewer = await asyncio.create_subprocess_exec(DEBIAN_PYTHON, str(CLIENTS / "gst_watch.py"), url, "90", codec, token)
    try:
        assert await asyncio.wait_for(viewer.wait(), 90) == 0
    finally:
        if viewer.returncode is None:
            viewer.kill()
            await viewer.wait()


@pytest.mark.netns
async def test_gstreamer_sees_and_hears_gstreamer(lan_relay: Relay) -> None:
    async with publish_with_gstreamer(lan_relay, "vp8"):
        await see_and_hear_with_gstreamer(lan_relay, "vp8")


@pytest.mark.netns
async def test_gstreamer_that_says_nothing_of_its_h264_sees_and_hears_chromium(
    lan_relay: Relay, chromium: Browser
) -> None:
    await open_page(chromium, lan_relay)
    sender = await publish(chromium, lan_relay, codec="video/H264")
    await see_and_hear_with_gstreamer(lan_relay, "h264")
    await sender.leave()
