"""A network that lets no UDP out: browsers publish and watch over TCP (RFC 6544), by themselves and with the same page.
Read next: `tests/system/test_tcp.py`, for what connections may do.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.browser import Browser, open_browser
from tests.browser.peers import LAN, Peer, open_page, publish, watch
from tests.browser.test_adoption import (
    NOTE_STATES,
    UNTIL_PICTURES,
    move_everybody,
    one_worker_less_and_one_more,
    roll_out,
    upgrade,
)
from tests.clients.raw_client import request
from tests.system.asking import metrics
from tests.system.namespace import network_namespace
from tests.system.relay_process import Relay
from tests.system.worker_pids import pid_by_slot, until_gone

RULES = """
table inet firewall {
    chain arriving {
        type filter hook input priority 0;
        meta l4proto udp counter drop
    }
}
"""


@pytest.fixture
def no_udp() -> Iterator[None]:
    """A network in which nobody receives a datagram."""
    if os.geteuid() != 0:
        pytest.skip("a network namespace needs root")
    with network_namespace():
        subprocess.run(["nft", "-f", "-"], input=RULES, text=True, check=True)
        yield


def protocols(relay: Relay) -> list[str]:
    """Of the transports of all sessions in the room."""
    sessions = json.loads(request("GET", f"{relay.admin}/rooms/hall").body)["sessions"]
    urls = [f"{relay.admin}/sessions/{each['session']}" for each in sessions]
    found: list[dict[str, Any]] = [json.loads(request("GET", url).body)["transport"] for url in urls]
    return [each["remote_protocol"] for each in found]


async def watch_across_workers(browser: Browser, relay: Relay) -> Peer:
    await open_page(browser, relay)
    await publish(browser, relay, slot=0)
    viewer = await watch(browser, relay, slot=1)
    first = await viewer.first_frame()
    print(f"{browser.kind}: connected after {first['connected']:.0f} ms, a picture after {first['first']:.0f} ms")
    await browser.run(UNTIL_PICTURES)
    return viewer


@pytest.mark.usefixtures("no_udp")
@pytest.mark.parametrize("kind", ["chromium", "firefox"])
async def test_a_picture_comes_over_tcp_where_no_udp_does(kind: str) -> None:
    async with Relay(settings=LAN) as relay, open_browser(kind) as browser:
        viewer = await watch_across_workers(browser, relay)
        assert protocols(relay) == ["tcp", "tcp"]
        await viewer.leave()


async def test_a_browser_takes_udp_where_it_can(lan_relay: Relay, chromium: Browser) -> None:
    viewer = await watch_across_workers(chromium, lan_relay)
    assert protocols(lan_relay) == ["udp", "udp"]
    await viewer.leave()


@pytest.mark.usefixtures("no_udp")
async def test_chromium_keeps_its_connections_while_its_sessions_go_from_worker_to_worker() -> None:
    async with Relay(settings=LAN) as relay, open_browser("chromium") as browser:
        viewer = await watch_across_workers(browser, relay)
        await browser.run(NOTE_STATES)
        gaps = []
        for change in (move_everybody, one_worker_less_and_one_more, roll_out, upgrade):
            since = (await viewer.figures())["now"]
            await change(relay)
            await browser.run(UNTIL_PICTURES)
            gaps.append(round((await viewer.figures(since))["gap"]))
            await relay.until_ready()
        print(
            "between two pictures, at most, for moves, one worker less and one more, a rollout, an upgrade (ms):", gaps
        )
        assert metrics(relay)["millrace_tcp_accepted_total"] == 2
        assert await browser.run("return states") == []
        await viewer.leave()


@pytest.mark.usefixtures("no_udp")
async def test_chromium_connects_again_by_itself_when_its_worker_dies() -> None:
    # Each session's worker dies once: of two deaths within five seconds libwebrtc takes the second for its end.
    settings = {**LAN, "workers.quick_death_seconds": "1"}
    async with Relay(settings=settings) as relay, open_browser("chromium") as browser:
        viewer = await watch_across_workers(browser, relay)
        await browser.run(NOTE_STATES)
        gaps = []
        for slot in (0, 1):
            since = (await viewer.figures())["now"]
            pid = pid_by_slot(relay)[slot]
            os.kill(pid, signal.SIGKILL)
            await until_gone(pid, 5)
            await browser.run(UNTIL_PICTURES)
            gaps.append(round((await viewer.figures(since))["gap"]))
            await relay.until_ready()
        print("between two pictures, at most, for the publisher's and the viewer's worker (ms):", gaps)
        assert metrics(relay)["millrace_tcp_accepted_total"] == 4
        assert await browser.run("return states") == []
        await viewer.leave()
