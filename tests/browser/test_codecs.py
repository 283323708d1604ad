"""Browsers watch browsers, publisher and viewer on different workers: each codec that is forwarded."""

import asyncio
import json

import pytest

from tests.browser.browser import Browser
from tests.browser.peers import Peer, assert_seen_and_heard, hold, open_page, publish, watch
from tests.system.relay_process import Relay


async def see(publisher: Browser, viewer: Browser, relay: Relay, codec: str) -> None:
    await open_page(publisher, relay)
    if viewer is not publisher:
        await open_page(viewer, relay)
    sender = await publish(publisher, relay, slot=0, codec=f"video/{codec}")
    receiver = await watch(viewer, relay, slot=1)
    times = await receiver.first_frame()
    seen = await hold(receiver)
    print(json.dumps({"codec": codec, **times, "gap": seen["gap"], "pictures": seen["pictures"]}))
    assert seen["video"]["codec"] == f"video/{codec}"
    assert_seen_and_heard(seen)
    await receiver.leave()
    await sender.leave()


@pytest.mark.timing(cores=1)
@pytest.mark.parametrize("codec", ["VP8", "VP9", "H264", "AV1"])
async def test_chromium_sees_and_hears_chromium(relay: Relay, chromium: Browser, codec: str) -> None:
    await see(chromium, chromium, relay, codec)


@pytest.mark.timing(cores=1)
@pytest.mark.netns
@pytest.mark.parametrize("codec", ["VP8", "VP9", "AV1"])
async def test_firefox_sees_and_hears_chromium(
    lan_relay: Relay, chromium: Browser, firefox: Browser, codec: str
) -> None:
    await see(chromium, firefox, lan_relay, codec)


@pytest.mark.timing(cores=1)
@pytest.mark.netns
@pytest.mark.parametrize("codec", ["VP8", "VP9", "AV1"])
async def test_chromium_sees_and_hears_firefox(
    lan_relay: Relay, chromium: Browser, firefox: Browser, codec: str
) -> None:
    await see(firefox, chromium, lan_relay, codec)


async def until_codec(viewer: Peer, codec: str) -> None:
    """Returns when 30 more frames of this codec are decoded."""
    async with asyncio.timeout(60):
        before = None
        while True:
            video = (await viewer.figures())["video"]
            if video.get("codec") == f"video/{codec}":
                before = before or video["framesDecoded"]
                if video["framesDecoded"] >= before + 30:
                    return
            await asyncio.sleep(0.1)


async def test_a_publisher_of_all_codecs_is_followed_from_one_to_the_other(relay: Relay, chromium: Browser) -> None:
    await open_page(chromium, relay)
    sender = await publish(chromium, relay, slot=0)
    everything = await watch(chromium, relay, slot=1)
    one_alone = await watch(chromium, relay, name="h264", slot=0, codec="video/H264")
    await until_codec(everything, "VP8")
    assert "codec" not in (await one_alone.figures())["video"]
    for codec in ("H264", "VP9", "AV1", "H264"):
        await sender.change(f"video/{codec}")
        await until_codec(everything, codec)
        if codec == "H264":
            await until_codec(one_alone, codec)
    for peer in (everything, one_alone, sender):
        await peer.leave()


@pytest.mark.netns
async def test_a_firefox_that_may_send_all_codecs_is_seen(
    lan_relay: Relay, chromium: Browser, firefox: Browser
) -> None:
    await open_page(firefox, lan_relay)
    await open_page(chromium, lan_relay)
    sender = await publish(firefox, lan_relay, slot=0)
    receiver = await watch(chromium, lan_relay, slot=1)
    await until_codec(receiver, "VP8")
    await receiver.leave()
    await sender.leave()
