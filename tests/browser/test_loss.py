"""A lossy network: one in twenty datagrams, both ways, on the publisher's path and on the viewer's."""

import os
from typing import Any

import pytest

from tests.browser.browser import Browser
from tests.browser.peers import hold, open_page, publish, watch, window
from tests.system.namespace import lose
from tests.system.relay_process import Relay

SECONDS = float(os.environ.get("MILLRACE_LOSS_SECONDS", "15"))
STARTUP_SECONDS = 5.0
PERCENT = 5
WINDOWS = 4


@pytest.mark.timing(cores=1)
@pytest.mark.netns
@pytest.mark.timeout(WINDOWS * SECONDS + STARTUP_SECONDS + 120)
@pytest.mark.parametrize("codec", ["VP8", "H264"])
async def test_nothing_freezes_on_a_network_that_loses_one_in_twenty(
    namespace: None, relay: Relay, chromium: Browser, codec: str
) -> None:
    lose(PERCENT, relay.media_port)
    await open_page(chromium, relay)
    await publish(chromium, relay, slot=0, codec=f"video/{codec}")
    viewer = await watch(chromium, relay, slot=1)
    print(await viewer.first_frame())
    await window(viewer, STARTUP_SECONDS)
    seen = await hold(viewer, SECONDS, WINDOWS, lacks)
    video, audio = seen["video"], seen["audio"]
    print({key: round(video[key], 3) for key in KEYS if key in video}, f"{seen['gap']:.0f} ms")
    print({key: round(audio[key], 3) for key in KEYS if key in audio})
    assert lacks(seen, SECONDS) == [], seen


def lacks(seen: Any, seconds: float) -> list[str]:
    """The viewer asks again for what its own path lost, and hears 95 % of the sound at first hand."""
    video, audio = seen["video"], seen["audio"]
    has = {
        "repairs asked for": video["nackCount"] > seconds,
        "no freeze": video["freezeCount"] == 0,
        "frames decoded": video["framesDecoded"] > 25 * seconds,
        "most of the sound": audio["concealedSamples"] < 0.2 * audio["totalSamplesReceived"],
    }
    return [name for name, is_there in has.items() if not is_there]


KEYS = (
    *("packetsReceived", "packetsLost", "retransmittedPacketsReceived", "nackCount", "pliCount", "keyFramesDecoded"),
    *("framesDecoded", "framesDropped", "freezeCount", "totalFreezesDuration"),
    *("concealedSamples", "totalSamplesReceived"),
)
