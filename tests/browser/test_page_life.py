"""The page when its server, its tab, its token or its place on the server is gone; and whether everybody can use it."""

import asyncio
import json
import os
import signal
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from millrace.relay.access.grants import make_token
from tests.browser.browser import Browser
from tests.browser.test_page import PLAYS, SECRET, WATCH_STATE, shoot, until
from tests.system.relay_process import Relay

AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
LIST = "document.querySelector('#rooms ul').children.length"
NOTE_AWAY = """
    globalThis.awayAt = 0;
    new MutationObserver(() => {
      const gone = ['watch', 'publish'].every((name) => millrace[name].root.dataset.state === 'away');
      if (gone && !document.querySelector('#rooms li')) awayAt ||= Date.now();
    }).observe(document.body, { subtree: true, childList: true, attributes: true });
"""
BADGE = "document.querySelector('#watch .badge').textContent"
IS_GREY = "getComputedStyle(millrace.watch.video).filter !== 'none'"


def signal_all(relay: Relay, number: int) -> None:
    """The master first: it would replace a worker."""
    for pid in [relay.pid, *relay.worker_pids()]:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


@pytest.mark.timing(cores=1)
async def test_the_page_says_within_two_seconds_that_its_server_is_gone_and_comes_back_by_itself(
    relay: Relay, chromium: Browser
) -> None:
    await chromium.goto(f"{relay.url}/?publish=demo&watch=demo&source=test")
    await until(chromium, f"{PLAYS} && {LIST} === 1")
    for number in (signal.SIGSTOP, signal.SIGKILL):
        await chromium.run(NOTE_AWAY)
        ended = time.time()
        signal_all(relay, number)
        try:
            said = (await until(chromium, "awayAt")) / 1000 - ended
        except BaseException:
            signal_all(relay, signal.SIGCONT)
            raise
        print(f"the page says {said:.2f} s after {number.name} that the server is gone")
        assert said < 2
        assert await chromium.run(f"return {BADGE}") == "server away"
        assert await chromium.run(f"return {IS_GREY}")
        if number is signal.SIGSTOP:
            await shoot(chromium, "page-away")
            signal_all(relay, signal.SIGCONT)
        else:
            await relay.until_ended(20)
            await relay.start()
            await relay.until_ready()
        shown = await chromium.run("return millrace.watch.video.getVideoPlaybackQuality().totalVideoFrames")
        more = f"millrace.watch.video.getVideoPlaybackQuality().totalVideoFrames > {shown + 30}"
        await until(chromium, f"{WATCH_STATE} === 'connected' && {more} && {LIST} === 1 && !({IS_GREY})")


async def publishers(relay: Relay) -> list[str]:
    def ask() -> list[str]:
        with urllib.request.urlopen(f"{relay.url}/rooms", timeout=10) as answer:
            return [one["participant"] for room in json.load(answer) for one in room["publishers"]]

    return await asyncio.to_thread(ask)


async def test_a_publisher_whose_tab_was_killed_comes_back_under_its_name(relay: Relay, chromium: Browser) -> None:
    await chromium.goto(f"{relay.url}/?watch=demo", "viewer")
    start = f"{relay.url}/?publish=demo&source=test"
    await chromium.goto(start, "first")
    await until(chromium, "millrace.publish.root.dataset.state === 'connected'", "first")
    (name,) = await publishers(relay)
    await chromium.crash("first")
    await chromium.goto(start, "again")
    await until(chromium, "millrace.publish.root.dataset.state === 'connected'", "again")
    assert await publishers(relay) == [name]
    # Another tab that publishes beside it is somebody else.
    await chromium.goto(start, "other")
    await until(chromium, "millrace.publish.root.dataset.state === 'connected'", "other")
    both = await publishers(relay)
    assert len(both) == 2
    assert name in both
    assert await chromium.run("return millrace.publish.root.dataset.state", "again") == "connected"

    # A keyboard's user stays where they are while the list changes around them. A page in the background does not ask.
    await chromium.run("setInterval(() => millrace.list.refresh(), 100)", "viewer")
    await until(chromium, "document.querySelector('#rooms li button')", "viewer")
    await chromium.run("globalThis.chosen = document.querySelector('#rooms li button'); chosen.focus()", "viewer")
    await chromium.close_page("other")
    row = "document.querySelector('#rooms li').innerText"
    await until(chromium, f"!{row}.includes('{next(one for one in both if one != name)}')", "viewer")
    assert await chromium.run("return document.activeElement === chosen && chosen.isConnected", "viewer")


REFUSED = """
    const asked = () => performance.getEntriesByType('resource').filter(({ name }) => name.endsWith('/rooms')).length;
    const field = document.getElementById('token');
    const use = async (token) => { field.value = token; field.dispatchEvent(new Event('change')); };
    const said = () => document.querySelector('#rooms .message').textContent;
    const until = async (condition) => {
      while (!condition()) await new Promise((resolve) => setTimeout(resolve, 10));
    };
    await until(() => said().includes('whoever has an access token'));
    await use('nonsense');
    await until(() => said() === 'The access token is refused.');
    const before = asked();
    for (let turn = 0; turn < 5; turn += 1) await millrace.list.refresh();
    const again = asked() - before;
    await use('%s');
    await until(() => said() === 'Nobody is here yet. Publish something!');
    return again;
"""


async def test_a_token_that_was_refused_is_not_sent_again(chromium: Browser) -> None:
    token = make_token("devkey", SECRET, identity="ann", room="demo", expires_at=time.time() + 600)
    async with Relay(settings={"auth.keys": f'{{ devkey = "{SECRET}" }}'}) as relay:
        await chromium.goto(relay.url)
        assert await chromium.run(REFUSED % token) == 0


TRIES = (
    "performance.getEntriesByType('resource').filter(({ name }) => name.includes('/whep/')).map((one) => one.startTime)"
)


async def test_a_full_server_is_said_to_be_full_and_asked_again_when_it_wants_to_be(chromium: Browser) -> None:
    async with Relay(workers=1, settings={"limits.sessions_per_worker": "1"}) as relay:
        await chromium.goto(f"{relay.url}/?watch=demo", "first")
        await until(chromium, f"{WATCH_STATE} === 'waiting'", "first")
        await chromium.goto(f"{relay.url}/?watch=demo", "second")
        message = "document.querySelector('#watch .message').textContent"
        await until(chromium, f"{message}.startsWith('The server is full.')", "second")
        await chromium.run("millrace.watch.stop()", "first")
        await until(chromium, f"{WATCH_STATE} === 'waiting'", "second")
        first, second = (await chromium.run(f"return {TRIES}", "second"))[:2]
        assert second - first >= 5000


async def violations(browser: Browser, page: str = "main") -> list[Any]:
    """What axe-core finds, for WCAG 2.2 AA and its own good practice."""
    found = await browser.run(f"{AXE.read_text()}; return (await axe.run()).violations", page)
    return [(one["id"], one["help"], [node["html"] for node in one["nodes"]]) for one in found]


SMALL = """return [...document.querySelectorAll('input, select, textarea')]
    .filter((one) => parseFloat(getComputedStyle(one).fontSize) < 16).map((one) => one.outerHTML)"""


async def test_the_page_and_the_player_can_be_used_by_those_who_read_with_their_ears(
    relay: Relay, chromium: Browser
) -> None:
    await chromium.goto(f"{relay.url}/?publish=demo&watch=demo&source=test")
    await until(chromium, f"{PLAYS} && {LIST} === 1")
    await chromium.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    for scheme, width, height in (("light", 1280, 1300), ("dark", 390, 2300)):
        await chromium.colour_scheme(scheme)
        await chromium.viewport(width, height)
        assert await violations(chromium) == []
        assert await chromium.run("return document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"
        await shoot(chromium, f"page-all-{scheme}")
    assert await chromium.run(SMALL) == []
    await chromium.run("millrace.publish.stop(); millrace.watch.form.room.value = '..'; millrace.watch.stop()")
    await chromium.run("millrace.watch.start()")
    await until(chromium, "document.querySelector('#watch .message.error')?.innerText.includes('256 characters')")
    assert await violations(chromium) == []
    await chromium.goto(f"{relay.url}/watch/demo", "player")
    await until(chromium, "document.querySelector('.message').textContent.startsWith('Nobody')", "player")
    assert await violations(chromium, "player") == []
