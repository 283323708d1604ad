"""Who comes and goes, and when the picture is there: the first frame, publishers that return, simulcast, a worker's
death.
"""

import asyncio
import contextlib
import json
import math
import os
import signal
import time
import urllib.request

import pytest

from tests.browser.browser import Browser
from tests.browser.peers import MAX_GAP_MS, assert_seen_and_heard, hold, open_page, publish, watch
from tests.system.relay_process import Relay
from tests.system.wire import Wire
from tests.system.worker_pids import pid_by_slot, until_gone

TRIES = 15
"""What the relay does in half a second, a busy machine may hide most of the time, and not always."""


@pytest.mark.timing
async def test_the_first_frame_comes_within_half_a_second_of_the_post(relay: Relay, chromium: Browser) -> None:
    await open_page(chromium, relay)
    await publish(chromium, relay, slot=0)
    waits: list[float] = []
    # A decoder starts late on a busy machine; the median of an idle one is no different from the best.
    while len(waits) < TRIES and min(waits, default=500) >= 500:
        viewer = await watch(chromium, relay, slot=1)
        waits.append((await viewer.first_frame())["first"])
        await viewer.leave()
    print("first frame after (ms):", waits)
    assert min(waits) < 500


@pytest.mark.timing(cores=1)
async def test_a_viewer_sees_a_publisher_that_comes_later_and_one_that_returns(relay: Relay, chromium: Browser) -> None:
    await open_page(chromium, relay, "publisher")
    await open_page(chromium, relay, "viewer")
    viewer = await watch(chromium, relay, "viewer", slot=1)
    await asyncio.sleep(1)
    waits = []
    for slot in (0, 1, 0, 0):
        since = (await viewer.figures())["now"]
        publisher = await publish(chromium, relay, "publisher", slot=slot)
        waits.append(await chromium.run(UNTIL_PICTURE.format(since=since), "viewer"))
        await publisher.leave()
    print("picture after the publisher's connection (ms):", waits)
    assert sorted(waits)[len(waits) // 2] < 1000


UNTIL_PICTURE = """
    const start = performance.now();
    const {{ frames }} = peers.all.get('in');
    while (!frames.some((time) => time > {since})) {{
      if (performance.now() > start + 20000) throw new Error('no picture');
      await new Promise((resolve) => setTimeout(resolve, 5));
    }}
    return frames.find((time) => time > {since}) - start;
"""


@pytest.mark.timing(cores=1)
@pytest.mark.parametrize(
    ("codec", "rids"),
    [
        pytest.param("video/VP8", ["q", "h", "f"], id="vp8-named"),
        # OBS's names, which it gives the other way round: sizes have to be read.
        pytest.param("video/H264", ["0", "1", "2"], id="h264-numbered-upwards"),
    ],
)
async def test_the_best_layer_of_a_simulcast_is_watched(
    relay: Relay, chromium: Browser, codec: str, rids: list[str]
) -> None:
    await open_page(chromium, relay)
    # Chromium sends three layers from this size on.
    size = {"source": "canvas", "width": 960, "height": 540}
    await publish(chromium, relay, slot=0, codec=codec, rids=rids, **size)
    viewer = await watch(chromium, relay, slot=1)
    await viewer.first_frame()
    widths = []
    async with asyncio.timeout(90):
        # A sender starts its upper layers when its estimate of the path allows.
        while not widths or widths[-1] != 960:
            widths.append((await viewer.figures())["video"].get("width"))
            await asyncio.sleep(0.1)
    print("widths:", sorted(set(widths)))
    # Another viewer shows it smaller.
    small = await watch(chromium, relay, name="small", slot=1, url=f"{relay.url}/whep/hall?max-height=270")
    async with asyncio.timeout(30):
        while (await small.figures())["video"].get("width") != 480:
            await asyncio.sleep(0.1)
    assert_seen_and_heard(await hold(viewer, 5), 5)
    assert_seen_and_heard(await hold(small, 5), 5)
    assert [(await one.figures())["video"].get("width") for one in (viewer, small)] == [960, 480]


@pytest.mark.timing(cores=1)
async def test_a_sender_of_three_layers_soon_knows_that_its_path_is_wide(relay: Relay, chromium: Browser) -> None:
    await open_page(chromium, relay)
    size = {"source": "canvas", "width": 1280, "height": 720}
    publisher = await publish(chromium, relay, slot=0, codec="video/VP8", rids=["q", "h", "f"], **size)
    targets = [0.0]
    # Where the probes before its first frame are not answered, it is at 0.5 Mbit/s after ten seconds.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(10):
            while targets[-1] < 2_300_000:
                await asyncio.sleep(0.1)
                targets.append((await publisher.figures())["video"].get("targetBitrate", 0))
    print("bit/s, every 100 ms:", targets)
    assert targets[-1] >= 2_300_000


@pytest.mark.timing
@pytest.mark.skipif(os.geteuid() != 0, reason="listening on the wire needs root")
async def test_a_call_does_not_notice_the_death_of_another_worker(chromium: Browser) -> None:
    async with Relay(settings={"workers.quick_death_seconds": "1"}) as relay:
        await open_page(chromium, relay)
        await publish(chromium, relay, slot=1)
        viewer = await watch(chromium, relay, slot=1)
        await viewer.first_frame()
        best = dict.fromkeys(AT_A_DEATH, math.inf)
        for _ in range(TRIES):
            victim = pid_by_slot(relay)[0]
            since = (await viewer.figures())["now"]
            with Wire("lo", relay.media_port) as wire:
                await asyncio.sleep(0.5)
                os.kill(victim, signal.SIGKILL)
                killed_at = time.time()
                await until_gone(victim, 5)
                await relay.until_ready()
                back_at = time.time()
                await asyncio.sleep(0.5)
            publishers, viewers = wire.longest_silences()
            found = (
                viewers - max(0, publishers - 25),
                wire.longest_stay(),
                (back_at - killed_at) * 1000,
                (await viewer.figures(since))["gap"],
            )
            print("at a death (ms):", dict(zip(AT_A_DEATH, found, strict=True)))
            best = {name: min(best[name], value) for name, value in zip(AT_A_DEATH, found, strict=True)}
            if all(best[name] < bound for name, bound in AT_A_DEATH.items()):
                break
        assert {name: value for name, value in best.items() if value >= AT_A_DEATH[name]} == {}


AT_A_DEATH = {
    # Beyond the publisher's own, whose browser a busy machine keeps waiting for longer than this.
    "the viewer's silence": 50,
    "a packet's stay in the relay": 50,
    # From the death until it was reaped, replaced, and all serve.
    "until all serve": 500,
    "between two pictures": MAX_GAP_MS,
}
"""Milliseconds. Each has to be met in one of the tries."""


async def test_chromium_that_closes_its_connection_is_noticed_at_once(chromium: Browser) -> None:
    await closes(chromium)


async def test_firefox_that_closes_its_connection_is_noticed_at_once(firefox: Browser) -> None:
    await closes(firefox)


async def closes(browser: Browser) -> None:
    """A viewer says close_notify, once to the worker that it connected to and once to a successor."""
    async with Relay(workers=1, settings={"workers.quick_death_seconds": "1"}) as relay:
        await open_page(browser, relay)
        await publish(browser, relay)
        for kill in (False, True):
            viewer = await watch(browser, relay)
            await viewer.first_frame()
            if kill:
                pid = pid_by_slot(relay)[0]
                os.kill(pid, signal.SIGKILL)
                await until_gone(pid, 5)
                await relay.until_ready()
            assert viewers(relay) == 1
            # Without a DELETE; consent would end after half a minute.
            await browser.run("peers.all.get('in').pc.close()")
            async with asyncio.timeout(20):
                while viewers(relay) > 0:
                    await asyncio.sleep(0.05)


def viewers(relay: Relay) -> int:
    """As the administration says."""
    with urllib.request.urlopen(f"{relay.admin}/rooms") as answer:
        return sum(room["viewers"] for room in json.load(answer))
