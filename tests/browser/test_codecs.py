"""Browsers watch browsers, publisher and viewer on different workers: each codec that is forwarded."""

import json

import pytest

from tests.browser.browser import Browser
from tests.browser.peers import assert_seen_and_heard, hold, open_page, publish, watch
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
