"""What a user gives to others: links with a token, the player, a frame on another site, a module for other pages."""

import asyncio
import json
import re
import shlex
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

import imageio_ffmpeg
import pytest
from aiohttp import web

from millrace.master.operator.cli import main
from tests.browser.browser import Browser
from tests.browser.conftest import ARTIFACTS
from tests.browser.test_page import PLAYS, SECRET, shoot, until
from tests.system.relay_process import Relay

KEYS = {"auth.keys": f'{{ devkey = "{SECRET}" }}'}
PLAYER_PLAYS = "globalThis.millrace?.video.videoWidth && millrace.video.currentTime > 1"
TYPED_IN_A_ROOM = "document.querySelector('#{panel} [name=room]').value"
NOTE_COPIES = """
    globalThis.copies = [];
    navigator.clipboard.writeText = async (text) => { copies.push(text); };
"""
COPY_LINK = "document.querySelector('#{panel} .share button').click();"
SAID = "document.querySelector('#{panel} .said').textContent"


@pytest.fixture
def printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], str]:
    """Runs a `millrace` command as it would be typed beside the server's configuration; returns what it prints."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "millrace.toml").write_text(f'[auth]\nkeys = {{ devkey = "{SECRET}" }}\n')

    def run(line: str) -> str:
        program, *words = shlex.split(line)
        assert program == "millrace"
        assert main(words) == 0
        return capsys.readouterr().out.strip()

    return run


async def test_a_link_opens_a_room_and_the_page_gives_away_no_more_than_watching(
    chromium: Browser, printed: Callable[[str], str]
) -> None:
    async with Relay(settings=KEYS) as relay:
        token_of = "millrace token --config millrace.toml --room hall --identity ann"
        link = printed(f"{token_of} --publish --link {relay.url}")
        await chromium.goto(link)
        token = urlsplit(link).fragment.removeprefix("token=")
        assert await until(chromium, "document.getElementById('token').value") == token
        assert await chromium.run("return location.href") == f"{relay.url}/"
        await chromium.goto(f"{relay.url}/?reloaded")
        assert await until(chromium, "document.getElementById('token').value") == token
        # In a page that is open, a pasted link is a change of the fragment alone.
        await chromium.run(f"location.hash = 'token={token}'")
        assert await until(chromium, f"{TYPED_IN_A_ROOM.format(panel='publish')} === 'hall' && location.hash === ''")
        assert await chromium.run(f"return {TYPED_IN_A_ROOM.format(panel='watch')}") == "hall"
        await chromium.run("millrace.publish.form.source.value = 'test'; millrace.publish.start()")
        await until(chromium, "millrace.publish.root.dataset.state === 'connected'")

        await chromium.run(NOTE_COPIES + COPY_LINK.format(panel="publish"))
        said = await until(chromium, SAID.format(panel="publish"))
        assert "not shared" in said
        assert await chromium.run("return copies") == []
        await shoot(chromium, "page-share")
        for_viewers = printed(said[said.index("millrace token") :])
        await chromium.goto(for_viewers, "viewer")
        await until(chromium, PLAYER_PLAYS, "viewer")
        assert await chromium.run("return location.href", "viewer") == f"{relay.url}/watch/hall"
        await chromium.goto(f"{relay.url}/watch/hall?reloaded", "viewer")
        await until(chromium, PLAYER_PLAYS, "viewer")

        # The viewer's token may go on to others, in a link that opens.
        await chromium.goto(relay.url, "viewer")
        await until(chromium, "document.getElementById('token').value", "viewer")
        await chromium.run(
            NOTE_COPIES + "millrace.watch.form.room.value = 'hall';" + COPY_LINK.format(panel="watch"), "viewer"
        )
        assert await until(chromium, "copies[0]", "viewer") == for_viewers
        # And nowhere does the server, which logs requests, get to see it in an address.
        assert token not in relay.log()


async def test_what_the_page_prints_for_ffmpeg_publishes_when_it_is_typed(
    chromium: Browser, printed: Callable[[str], str], tmp_path: Path
) -> None:
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    (tmp_path / "ffmpeg").symlink_to(ffmpeg)
    source = "-f lavfi -i testsrc2=size=320x240:rate=30:duration=30 -f lavfi -i sine=duration=30"
    movie = await asyncio.create_subprocess_exec(
        ffmpeg, "-loglevel", "error", *source.split(), "-preset", "ultrafast", str(tmp_path / "movie.mp4")
    )
    assert await movie.wait() == 0
    async with Relay(settings=KEYS) as relay:
        token_of = "millrace token --config millrace.toml --room hall --identity ann"
        await chromium.goto(printed(f"{token_of} --link {relay.url}"))
        typed = await until(chromium, "document.getElementById('ffmpeg-command').textContent")
        process = await asyncio.create_subprocess_shell(
            f"exec {typed}", cwd=tmp_path, env={"PATH": str(tmp_path)}, stdin=asyncio.subprocess.DEVNULL
        )
        try:
            await chromium.run("millrace.watch.start()")
            await until(chromium, PLAYS)
        finally:
            process.kill()
            await process.wait()


@asynccontextmanager
async def site(html: str) -> AsyncIterator[int]:
    """Another site, under any name of this machine; its port."""

    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(text=html, content_type="text/html")

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    place = web.TCPSite(runner, "127.0.0.1", 0)
    await place.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


# As deploy/SESSION.md shows it.
OWN_PAGE = """
    const {{ Session }} = await import('{url}/session.js');
    const canvas = document.createElement('canvas');
    setInterval(() => canvas.getContext('2d').fillRect(0, 0, Math.random() * 300, 100), 30);
    const stream = canvas.captureStream(30);
    globalThis.states = [];
    globalThis.session = new Session({{
      url: '{url}/whip/hall',
      token: '{token}',
      prepare: (pc) => stream.getTracks().forEach((track) => pc.addTransceiver(track, {{ direction: 'sendonly' }})),
      onstate: (state) => states.push(state),
    }});
    session.start();
"""


async def test_another_site_publishes_with_the_module_and_frames_the_player_if_it_is_named(
    chromium: Browser, printed: Callable[[str], str]
) -> None:
    # An iframe is blocked by the name that the page has, so one server is two sites.
    async with site("<!doctype html><title>site</title>") as port:
        named, other = f"http://localhost:{port}", f"http://127.0.0.1:{port}"
        settings = {
            **KEYS,
            "auth.public_rooms": '["hall"]',
            "http.cors_origins": json.dumps([named]),
            "http.frame_ancestors": json.dumps([named]),
            # Nobody listens there: it is one more path, which does not come about.
            "ice.servers": '[{ urls = ["turn:127.0.0.1:9?transport=tcp"], secret = "shared" }]',
        }
        async with Relay(settings=settings) as relay:
            token = printed("millrace token --config millrace.toml --room hall --identity ann --publish")
            await chromium.goto(named)
            await chromium.run(OWN_PAGE.format(url=relay.url, token=token))
            await until(chromium, "states.at(-1) === 'connected'")
            (server,) = await chromium.run("return session.pc.getConfiguration().iceServers")
            assert server["urls"] in ("turn:127.0.0.1:9?transport=tcp", ["turn:127.0.0.1:9?transport=tcp"])
            assert re.fullmatch(r"\d{10}:[0-9a-f]{16}", server["username"])
            assert server["credential"]
            await chromium.goto(f"{relay.url}/?watch=hall", "page")
            line = await until(chromium, "document.getElementById('frame-line').textContent", "page")
            assert relay.url in line
            for where in (named, other):
                await chromium.goto(where, "framing")
                # Its own text, as a person pastes it.
                await chromium.run(f"document.body.innerHTML = {json.dumps(line)}", "framing")
                if where == named:
                    await until(chromium, PLAYER_PLAYS, "framing", frame="/watch/hall")
                    await chromium.screenshot(ARTIFACTS / "player-framed.png", "framing")
                else:
                    await until(
                        chromium, "document.body.innerText.includes('refused')", "framing", frame="chrome-error"
                    )
            await chromium.run("session.stop()")
            assert await chromium.run("return states.at(-1)") == "ended"


ONLY_MUTED = """
    const play = HTMLMediaElement.prototype.play;
    let mayPlay = false;
    addEventListener('click', () => { mayPlay = true; }, true);
    HTMLMediaElement.prototype.play = function () {
      if (this.muted || mayPlay) return play.call(this);
      return Promise.reject(new DOMException('a click first', 'NotAllowedError'));
    };
    dispatchEvent(new Event('hashchange'));
"""
MESSAGE = "document.querySelector('.message').textContent"


async def test_the_player_says_why_nothing_comes_and_turns_the_sound_on(relay: Relay, chromium: Browser) -> None:
    await chromium.viewport(390, 844)
    await chromium.goto(f"{relay.url}/watch/a%0Aroom")
    await until(chromium, f'{MESSAGE} === "A room\'s name is 1 to 256 characters, none a control, and not . or .."')
    room = quote("Ann's café/2", safe="")
    await chromium.goto(f"{relay.url}/watch/{room}")
    await until(chromium, f"{MESSAGE}.startsWith('Nobody is sending right now.')")
    assert await until(chromium, "document.readyState === 'complete'")
    await chromium.screenshot(ARTIFACTS / "player-waiting.png")
    await chromium.goto(f"{relay.url}/?publish={room}&source=test", "publisher")
    await until(chromium, f"{PLAYER_PLAYS} && {MESSAGE} === ''")
    await chromium.run(ONLY_MUTED)
    await until(chromium, f"{PLAYER_PLAYS} && millrace.video.muted && !document.querySelector('button').hidden")
    await shoot(chromium, "player-muted")
    await chromium.run("document.querySelector('button').click()")
    await until(chromium, "!millrace.video.muted && document.querySelector('button').hidden && !millrace.video.paused")
    size = await chromium.run("const box = millrace.video.getBoundingClientRect(); return [box.width, box.height]")
    assert size == [390, 844]
