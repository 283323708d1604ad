"""A browser's call while what serves it is killed, replaced or exchanged for another worker: Chromium must not notice
that anything is amiss.
"""

import asyncio
import json
import os
import signal

import pytest

from tests.browser.browser import Browser
from tests.browser.peers import Peer, open_page, publish, watch
from tests.clients.raw_client import request
from tests.system.asking import until_moved
from tests.system.relay_process import Relay
from tests.system.worker_pids import pid_by_slot, until_gone

ROLLED_OUT = "all workers have the new configuration"
NOTE_STATES = """
    globalThis.states = [];
    for (const [name, { pc }] of peers.all) {
      for (const kind of ['connectionState', 'iceConnectionState']) {
        pc.addEventListener(kind.toLowerCase() + 'change', () => states.push(`${name} ${kind} ${pc[kind]}`));
      }
    }
    return [...peers.all.values()].map(({ pc }) => pc.iceConnectionState);
"""
UNTIL_PICTURES = """
    const { frames } = peers.all.get('in');
    const end = performance.now() + 30000;
    const from = performance.now() + 1000;
    while (frames.filter((time) => time > from).length < 20) {
      if (performance.now() > end) throw new Error('no picture');
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
"""


async def watch_across_workers(chromium: Browser, relay: Relay) -> Peer:
    """A viewer that plays what another worker's publisher sends; every state it leaves from now on is noted."""
    await open_page(chromium, relay)
    await publish(chromium, relay, slot=0)
    viewer = await watch(chromium, relay, slot=1)
    await viewer.first_frame()
    await chromium.run(UNTIL_PICTURES)
    assert set(await chromium.run(NOTE_STATES)) <= {"connected", "completed"}
    return viewer


@pytest.mark.timing(cores=1)
async def test_chromium_stays_connected_while_its_workers_are_killed(chromium: Browser) -> None:
    async with Relay(settings={"workers.quick_death_seconds": "1"}) as relay:
        viewer = await watch_across_workers(chromium, relay)
        gaps = []
        for slot in (0, 1, 0, 1):
            since = (await viewer.figures())["now"]
            pid = pid_by_slot(relay)[slot]
            os.kill(pid, signal.SIGKILL)
            await until_gone(pid, 5)
            await chromium.run(UNTIL_PICTURES)
            gaps.append(round((await viewer.figures(since))["gap"]))
            await relay.until_ready()
        print("between two pictures, at most, for each death (ms):", gaps)
        assert await chromium.run("return states") == []
        # Under a tenth of what Chromium takes for a dead server, on a machine that also encodes and decodes: the better
        # of two deaths of either side's worker.
        assert max(min(gaps[0::2]), min(gaps[1::2])) < 1500
        await viewer.leave()


async def move_everybody(relay: Relay) -> None:
    """Each session of the room goes to the other slot."""
    for one in json.loads(request("GET", f"{relay.admin}/rooms/hall").body)["sessions"]:
        await until_moved(relay, one["session"], 1 - one["slot"])


async def one_worker_less_and_one_more(relay: Relay) -> None:
    for number, count in ((signal.SIGTTOU, 1), (signal.SIGTTIN, 2)):
        os.kill(relay.pid, number)
        async with asyncio.timeout(30):
            while len(relay.worker_pids()) != count:
                await asyncio.sleep(0.05)
        await relay.until_ready()


@pytest.mark.timing(cores=1)
async def test_chromium_stays_connected_while_its_sessions_go_from_worker_to_worker(chromium: Browser) -> None:
    async with Relay() as relay:
        viewer = await watch_across_workers(chromium, relay)
        gaps = []
        for change in (move_everybody, one_worker_less_and_one_more, move_everybody):
            since = (await viewer.figures())["now"]
            await change(relay)
            await chromium.run(UNTIL_PICTURES)
            gaps.append(round((await viewer.figures(since))["gap"]))
        print("between two pictures, at most, for moves, one worker less and one more, moves (ms):", gaps)
        assert await chromium.run("return states") == []
        first, less_and_more, second = gaps
        assert min(first, second) < 1500
        assert less_and_more < 6000
        await viewer.leave()


async def roll_out(relay: Relay) -> None:
    relay.config_path.write_text("[media]\nrepair_delay_ms = 300\n")
    os.kill(relay.pid, signal.SIGHUP)
    await relay.until_logged(ROLLED_OUT)


async def upgrade(relay: Relay) -> None:
    os.kill(relay.pid, signal.SIGUSR2)
    await relay.until_logged(ROLLED_OUT, 2)


async def take_over(relay: Relay) -> None:
    await relay.kill_master()
    await relay.until_logged("the master is gone", 2)
    await relay.start()


@pytest.mark.timing(cores=1)
async def test_chromium_stays_connected_through_a_rollout_an_upgrade_and_a_new_master(chromium: Browser) -> None:
    async with Relay(settings={"workers.quick_death_seconds": "1"}) as relay:
        viewer = await watch_across_workers(chromium, relay)
        gaps = {}
        for change in (roll_out, upgrade, take_over):
            since, before = (await viewer.figures())["now"], relay.worker_pids()
            await change(relay)
            await relay.until_ready()
            await chromium.run(UNTIL_PICTURES)
            gaps[change.__name__] = round((await viewer.figures(since))["gap"])
            assert not set(before) & set(relay.worker_pids())
        print("between two pictures, at most (ms):", gaps)
        assert await chromium.run("return states") == []
        # The bar is a second. Here a master and its workers start on the cores that encode and decode: it must not
        # come to what Chromium takes for a dead server.
        assert max(gaps.values()) < 6000
        await viewer.leave()
