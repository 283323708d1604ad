"""Publishers and viewers in a browser's page: starts those of `peers.js`, says what a good call is. It must never know
the demo page. Read next: `tests/browser/test_codecs.py`.
"""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt

from tests.browser.browser import Browser
from tests.system.namespace import ADDRESS
from tests.system.relay_process import Relay

SCRIPT = (Path(__file__).parent / "peers.js").read_text()

KEY, SECRET = "devkey", "0123456789abcdef0123456789abcdef"
LAN = {"auth.keys": f'{{ {KEY} = "{SECRET}" }}', "media.bind": f'["{ADDRESS}"]'}
"""Settings for media on the namespace's Ethernet address: other addresses than loopback need keys."""

WATCH_SECONDS = 6.0
"""How long a call is held to having no freeze."""

MAX_GAP_MS = 400
"""Between two pictures shown. Chromium counts a freeze at 150 ms over the average; this holds Firefox to as much."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One publisher or viewer; `name` is unique in its page."""

    browser: Browser
    page: str
    name: str

    async def figures(self, since: float = 0) -> Any:
        """`{now, video, audio, pictures, gap}`: getStats summed by kind; `gap` is in milliseconds since `since`."""
        return await self._call("figures", self.name, since)

    async def first_frame(self, seconds: float = 30) -> dict[str, float]:
        """Milliseconds from the POST: `first` to the first picture shown, `connected` to the end of DTLS."""
        return await self._call("firstFrame", self.name, seconds=seconds)

    async def change(self, codec: str) -> None:
        """Has a publisher go on with another codec."""
        await self._call("change", self.name, codec)

    async def leave(self) -> None:
        """DELETE, and closes."""
        await self._call("leave", self.name)

    async def _call(self, function: str, *arguments: Any, seconds: float = 30) -> Any:
        listed = ", ".join(json.dumps(argument) for argument in arguments)
        return await self.browser.run(f"return peers.{function}({listed})", self.page, seconds)


async def open_page(browser: Browser, relay: Relay, page: str = "main") -> None:
    """An empty document of the relay's origin, with `peers` in it."""
    await browser.goto(f"{relay.url}/style.css", page)
    await browser.run(SCRIPT, page)


async def publish(browser: Browser, relay: Relay, page: str = "main", name: str = "out", **options: Any) -> Peer:
    """Publishes to the room `hall` and waits for the connection. The options are those of `peers.js`."""
    options = {"name": name, "url": f"{relay.url}/whip/hall", "token": relay_token(relay), **options}
    await browser.run(f"return peers.publish({json.dumps(options)})", page)
    return Peer(browser, page, name)


async def watch(browser: Browser, relay: Relay, page: str = "main", name: str = "in", **options: Any) -> Peer:
    """Watches the room `hall`; the POST is answered when this returns."""
    options = {"name": name, "url": f"{relay.url}/whep/hall", "token": relay_token(relay), **options}
    await browser.run(f"return peers.watch({json.dumps(options)})", page)
    return Peer(browser, page, name)


def relay_token(relay: Relay) -> str:
    """For the room `hall`, when the relay has keys."""
    if "auth.keys" not in relay.settings:
        return ""
    video = {"room": "hall", "roomJoin": True, "canPublish": True, "canSubscribe": True}
    return jwt.encode({"iss": KEY, "sub": "guest", "exp": int(time.time()) + 3600, "video": video}, SECRET)


def lacks(seen: Any, seconds: float = WATCH_SECONDS) -> list[str]:
    """What is missing in what a viewer counted: frames decoded and shown, no freeze, audio heard."""
    video, audio = seen["video"], seen["audio"]
    has = {
        "frames decoded": video.get("framesDecoded", 0) >= 15 * seconds,
        "no freeze": video.get("freezeCount", 0) == 0 and seen["gap"] < MAX_GAP_MS,
        "pictures shown": seen["pictures"] >= 15 * seconds,
        "audio received": audio.get("packetsReceived", 0) >= 40 * seconds,
        "a sound": audio.get("totalAudioEnergy", 0) > 0,
        "audio without holes": audio.get("concealedSamples", 0) < 0.05 * audio.get("totalSamplesReceived", 0),
    }
    return [name for name, is_there in has.items() if not is_there]


async def hold(
    viewer: Peer,
    seconds: float = WATCH_SECONDS,
    windows: int = 6,
    lacks: Callable[[Any, float], list[str]] = lacks,
) -> Any:
    """Watches for so long; returns what the viewer counted in that time.

    Encoder and decoder share this machine with whatever else runs, and wait for a core now and then. So a window that
    lacks something is looked at again: a relay that makes freezes makes them in each.
    """
    while True:
        seen = await window(viewer, seconds)
        windows -= 1
        if windows == 0 or not (missing := lacks(seen, seconds)):
            return seen
        print(f"a window without {', '.join(missing)}: {seen}")


async def window(viewer: Peer, seconds: float) -> Any:
    """What the viewer counts in so many seconds."""
    before = await viewer.figures()
    await asyncio.sleep(seconds)
    after = await viewer.figures(before["now"])
    for kind in ("video", "audio"):
        for key, value in before[kind].items():
            if isinstance(value, int | float) and key in after[kind]:
                after[kind][key] -= value
    return after


def assert_seen_and_heard(seen: Any, seconds: float = WATCH_SECONDS) -> None:
    """Nothing is missing."""
    assert lacks(seen, seconds) == [], seen
