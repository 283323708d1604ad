"""The demo page as a person uses it: it plays, says what is wrong, and takes up again what broke."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from millrace.relay.access.grants import make_token
from tests.browser.browser import Browser
from tests.browser.conftest import ARTIFACTS
from tests.system.relay_process import Relay
from tests.system.worker_pids import pid_by_slot


async def until(browser: Browser, condition: str, page: str = "main", seconds: float = 60, frame: str = "") -> Any:
    """Waits until an expression of the page, or of a frame in it, is true; returns its value."""
    code = f"""
      const end = performance.now() + {seconds * 1000};
      for (;;) {{
        const value = {condition};
        if (value) return value;
        if (performance.now() > end) throw new Error('never: ' + {condition!r} + '; ' + document.body.innerText);
        await new Promise((resolve) => setTimeout(resolve, 10));
      }}"""
    return await browser.run(code, page, seconds + 5, frame)


PLAYS = "millrace.watch.video.videoWidth && millrace.watch.video.currentTime > 1"
WATCH_STATE = "millrace.watch.root.dataset.state"
FIGURES = "document.querySelector('#watch .figures').innerText"

NOTE_PICTURES = """
    globalThis.pictures = [];
    const note = () => { pictures.push(performance.now()); millrace.watch.video.requestVideoFrameCallback(note); };
    millrace.watch.video.requestVideoFrameCallback(note);
"""

LONGEST_GAP = """
    const start = performance.now();
    const frames = () => [start, ...globalThis.pictures.filter((time) => time > start)];
    const gaps = () => frames().slice(1).map((time, place) => time - frames()[place]);
    // Long enough for the death to show, and then pictures that follow one another again.
    while (performance.now() < start + 2500 || gaps().length < 20 || Math.max(...gaps().slice(-15)) > 250) {
      if (performance.now() > start + 60000) throw new Error('no picture; ' + document.body.innerText);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    return Math.max(...gaps());
"""


async def shoot(browser: Browser, name: str, page: str = "main") -> Path:
    path = ARTIFACTS / f"{name}.png"
    await browser.screenshot(path, page)
    assert path.stat().st_size > 10_000
    return path


async def test_the_page_publishes_and_watches(relay: Relay, chromium: Browser) -> None:
    await chromium.viewport(1280, 900)
    await chromium.goto(f"{relay.url}/?publish=demo&watch=demo&source=test")
    await until(chromium, PLAYS)
    # The second reading is the first with rates.
    await until(chromium, f"{FIGURES}.includes('bit/s')")
    await until(chromium, "document.querySelector('#rooms li')?.innerText.includes('watching')")
    await until(chromium, "!millrace.watch.video.muted && millrace.watch.message.innerText === ''")
    await shoot(chromium, "page-desktop")
    await chromium.viewport(390, 844)
    await shoot(chromium, "page-phone-top")
    await chromium.run("document.querySelector('#watch').scrollIntoView()")
    await shoot(chromium, "page-phone")
    assert await chromium.run("return document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"


@pytest.mark.netns
async def test_the_page_waits_and_plays_in_firefox_on_the_same_machine(
    namespace: None, relay: Relay, firefox: Browser
) -> None:
    await firefox.goto(f"{relay.url}/?watch=demo")
    await until(firefox, f"{WATCH_STATE} === 'waiting'")
    await firefox.run("millrace.publish.form.source.value = 'test'; millrace.publish.start()")
    await until(firefox, PLAYS)
    await shoot(firefox, "page-firefox")
    # A hidden page's own timers tick once a second; some 30 pictures a second are drawn.
    await firefox.goto(f"{relay.url}/icon.svg", "in front")
    await until(firefox, "document.hidden")
    assert await firefox.run(PICTURES_OF_THREE_SECONDS) > 12


PICTURES_OF_THREE_SECONDS = """
    const { pc } = millrace.publish.session;
    const encoded = async () => [...(await pc.getStats()).values()].find(({ type, kind }) =>
      type === 'outbound-rtp' && kind === 'video').framesEncoded;
    const before = await encoded();
    await new Promise((resolve) => setTimeout(resolve, 3000));
    return await encoded() - before;
"""

MISSING = """
    const devices = navigator.mediaDevices;
    const missing = (name) => async () => { throw new DOMException('in the words of a browser', name); };
    const camera = devices.getUserMedia.bind(devices);
    devices.getUserMedia = async (wanted) => (wanted.audio ? missing('NotFoundError')() : camera(wanted));
    globalThis.lack = (name) => { devices.getUserMedia = missing(name); devices.getDisplayMedia = missing(name); };
"""


async def test_the_page_says_plainly_what_is_missing_and_sends_what_there_is(relay: Relay, chromium: Browser) -> None:
    await chromium.goto(relay.url)
    await chromium.run(MISSING)

    async def published(source: str) -> str:
        await chromium.run(f"millrace.publish.form.source.value = '{source}'; millrace.publish.start()")
        await until(chromium, "millrace.publish.root.dataset.state === 'connected'")
        tracks = "millrace.publish.video.srcObject.getTracks().map(({ kind }) => kind).sort().join()"
        said = await chromium.run(f"return document.querySelector('#publish .message').innerText + ' ' + {tracks}")
        await chromium.run("millrace.publish.stop()")
        return str(said)

    assert await published("camera") == "There is no microphone: the picture goes without sound. video"
    await chromium.run("lack('NotFoundError')")
    assert await published("camera") == "There is no camera: this is the test picture. audio,video"
    for name, source, said in (
        ("NotAllowedError", "camera", "The browser was not allowed to use the camera."),
        ("NotReadableError", "camera", "another program may be using it."),
        ("NotAllowedError", "screen", "The screen was not shared."),
        ("AbortError", "screen", "The screen does not start: in the words of a browser"),
    ):
        await chromium.run(f"lack('{name}'); millrace.publish.form.source.value = '{source}'; millrace.publish.start()")
        message = await until(chromium, "document.querySelector('#publish .message.error')?.innerText")
        assert message.endswith(said)
    await chromium.goto(f"{relay.url}/?watch=..")
    assert await until(
        chromium, "document.querySelector('#watch .message.error')?.innerText.includes('256 characters')"
    )


def slot_of(session_url: str) -> int:
    return int(session_url.rpartition("/")[2][:2], 16)


@pytest.mark.timing(cores=1)
async def test_the_page_plays_on_after_its_workers_death(relay: Relay, chromium: Browser) -> None:
    await chromium.goto(f"{relay.url}/?publish=demo&watch=demo&source=test")
    await until(chromium, PLAYS)
    await chromium.run(NOTE_PICTURES)
    for panel in ("watch", "publish"):
        resource = await chromium.run(f"return millrace.{panel}.session.resource")
        os.kill(pid_by_slot(relay)[slot_of(resource)], signal.SIGKILL)
        gap = await chromium.run(LONGEST_GAP, seconds=70)
        kept = await chromium.run(f"return millrace.{panel}.session.resource") == resource
        print(f"{panel}: {gap:.0f} ms without a picture after its worker's death, same session: {kept}")
        assert gap < 5000
        assert await chromium.run("return document.querySelector('#watch .message').textContent") == ""


RESTART_ICE = """
    const {{ pc, resource }} = millrace.{panel}.session;
    await pc.setLocalDescription(await pc.createOffer({{ iceRestart: true }}));
    const ours = (name) => pc.localDescription.sdp.match(new RegExp(`^${{name}}.*$`, 'm'))[0];
    const body = ['a=ice-ufrag:', 'a=ice-pwd:', 'm=', 'a=mid:'].map(ours).join('\\r\\n');
    const headers = {{ 'Content-Type': 'application/trickle-ice-sdpfrag', 'If-Match': '*' }};
    const response = await fetch(resource, {{ method: 'PATCH', headers, body }});
    const fragment = await response.text();
    const theirs = (name) => fragment.match(new RegExp(`^a=${{name}}:.*$`, 'm'))[0];
    let {{ sdp }} = pc.currentRemoteDescription;
    for (const name of ['ice-ufrag', 'ice-pwd']) sdp = sdp.replace(new RegExp(`^a=${{name}}:.*$`, 'gm'), theirs(name));
    await pc.setRemoteDescription({{ type: 'answer', sdp }});
    millrace.{panel}.session.etag = response.headers.get('ETag');
    return theirs('ice-ufrag').slice('a=ice-ufrag:'.length);
"""

USES_UFRAG = """await (async () => {{
    const stats = await millrace.{panel}.session.pc.getStats();
    const transport = [...stats.values()].find(({{ type }}) => type === 'transport');
    const pair = stats.get(transport.selectedCandidatePairId);
    return pair.state === 'succeeded' && stats.get(pair.remoteCandidateId).usernameFragment === '{ufrag}';
}})()"""


async def test_a_call_goes_on_through_ice_restarts_at_both_ends(relay: Relay, chromium: Browser) -> None:
    await chromium.goto(f"{relay.url}/?publish=demo&watch=demo&source=test")
    await until(chromium, PLAYS)
    for panel in ("publish", "watch"):
        resource = await chromium.run(f"return millrace.{panel}.session.resource")
        ufrag = await chromium.run(RESTART_ICE.format(panel=panel))
        await until(chromium, USES_UFRAG.format(panel=panel, ufrag=ufrag))
        shown = await chromium.run("return millrace.watch.video.currentTime")
        await until(chromium, f"millrace.watch.video.currentTime > {shown + 1}")
        assert await chromium.run(f"return millrace.{panel}.session.resource") == resource


ONLY_SOUND = """
    const devices = navigator.mediaDevices;
    const capture = devices.getUserMedia.bind(devices);
    devices.getUserMedia = () => capture({ audio: true });
    millrace.publish.start();
"""


async def test_the_page_plays_a_publisher_that_has_only_sound(relay: Relay, chromium: Browser) -> None:
    await chromium.goto(f"{relay.url}/?watch=demo")
    await chromium.run(ONLY_SOUND)
    await until(chromium, "millrace.watch.video.currentTime > 1")
    assert await chromium.run("return document.querySelector('#watch .idle').innerText") == "Sound only"
    await chromium.run("millrace.publish.stop(); millrace.publish.form.source.value = 'test'; millrace.publish.start()")
    await until(chromium, PLAYS)


@pytest.mark.timing(cores=1)
async def test_the_page_opens_a_new_session_when_the_server_lost_its_own(relay: Relay, chromium: Browser) -> None:
    await chromium.goto(f"{relay.url}/?publish=demo&watch=demo&source=test")
    await until(chromium, PLAYS)
    await chromium.run(NOTE_PICTURES)
    for panel in ("watch", "publish"):
        resource = await chromium.run(f"return millrace.{panel}.session.resource")
        url = f"{relay.admin}/sessions/{resource.rpartition('/')[2]}"
        async with aiohttp.ClientSession() as http, http.delete(url) as answer:
            assert answer.status in (200, 204)
        gap = await chromium.run(LONGEST_GAP, seconds=70)
        print(f"{panel}: {gap:.0f} ms without a picture after the server had ended it")
        assert gap < 5000
        assert await chromium.run(f"return millrace.{panel}.session.resource") != resource


async def test_the_page_says_that_it_waits_and_goes_on_when_the_publisher_returns(
    relay: Relay, chromium: Browser
) -> None:
    await chromium.goto(f"{relay.url}/?watch=demo", "viewer")
    await until(chromium, f"{WATCH_STATE} === 'waiting'", "viewer")
    assert "comes by itself" in await chromium.run(
        "return document.querySelector('#watch .message').innerText", "viewer"
    )
    # Not for ever in the browser's tab, as with a video that waits for an empty stream.
    assert await until(chromium, "document.readyState === 'complete'", "viewer")
    session = await chromium.run("return millrace.watch.session.resource", "viewer")
    for _ in range(2):
        await chromium.goto(f"{relay.url}/?publish=demo&source=test", "publisher")
        await until(chromium, f"{WATCH_STATE} === 'connected' && millrace.watch.video.videoWidth", "viewer")
        await chromium.close_page("publisher")
        await until(chromium, f"{WATCH_STATE} === 'waiting'", "viewer")
    await shoot(chromium, "page-waiting", "viewer")
    assert await chromium.run("return millrace.watch.session.resource", "viewer") == session


ONLY_VP8 = """
    const add = RTCPeerConnection.prototype.addTransceiver;
    RTCPeerConnection.prototype.addTransceiver = function addTransceiver(kind, init) {
      const transceiver = add.call(this, kind, init);
      if (kind === 'video' && init.direction === 'recvonly') {
        const { codecs } = RTCRtpReceiver.getCapabilities('video');
        transceiver.setCodecPreferences(codecs.filter(({ mimeType }) => mimeType === 'video/VP8'));
      }
      return transceiver;
    };
    millrace.watch.start();
"""


async def test_the_page_says_plainly_which_codec_its_browser_lacks(relay: Relay, chromium: Browser) -> None:
    await chromium.goto(f"{relay.url}/?publish=demo&source=test&codec=video/H264")
    await until(chromium, "millrace.publish.root.dataset.state === 'connected'")
    await until(chromium, "document.querySelector('#rooms li')?.innerText.includes('H.264')")
    await chromium.run(ONLY_VP8)
    message = await until(chromium, "document.querySelector('#watch .message.error')?.innerText")
    assert message.endswith("which is H.264.")
    await shoot(chromium, "page-codec")


SECRET = "0123456789abcdef0123456789abcdef"


async def test_the_page_says_which_codec_its_browser_lacks_of_a_publisher_that_comes_later(chromium: Browser) -> None:
    token = make_token("devkey", SECRET, identity="ann", room="demo", expires_at=time.time() + 600)
    async with Relay(settings={"auth.keys": f'{{ devkey = "{SECRET}" }}'}) as relay:
        await chromium.goto(relay.url, "publisher")
        await chromium.goto(relay.url, "viewer")
        for page in ("publisher", "viewer"):
            script = f"document.getElementById('token').value = '{token}'; millrace.publish.form.source.value = 'test';"
            await chromium.run(script, page)
        await chromium.run(ONLY_VP8, "viewer")
        await until(chromium, f"{WATCH_STATE} === 'waiting'", "viewer")
        start = "millrace.publish.form.codec.value = '{}'; millrace.publish.start()"
        await chromium.run(start.format("video/VP9"), "publisher")
        message = "document.querySelector('#watch .message').innerText"
        assert await until(chromium, f"{message}.endsWith('which is VP9.')", "viewer")
        await chromium.run("millrace.publish.stop()", "publisher")
        await until(chromium, f"{WATCH_STATE} === 'waiting'", "viewer")
        await chromium.run(start.format("video/VP8"), "publisher")
        await until(chromium, f"millrace.watch.video.videoWidth && {message} === ''", "viewer")


async def test_a_page_whose_participant_publishes_elsewhere_ends_and_says_so(chromium: Browser) -> None:
    token = make_token("devkey", SECRET, identity="ann", room="demo", expires_at=time.time() + 600)
    async with Relay(settings={"auth.keys": f'{{ devkey = "{SECRET}" }}'}) as relay:
        for page in ("first", "second"):
            await chromium.goto(relay.url, page)
            script = f"document.getElementById('token').value = '{token}'; millrace.publish.form.source.value = 'test';"
            await chromium.run(script + "millrace.publish.start()", page)
            await until(chromium, "millrace.publish.root.dataset.state === 'connected'", page)
        await until(chromium, "millrace.publish.root.dataset.state === 'failed'", "first")
        message = await chromium.run("return document.querySelector('#publish .message.error').innerText", "first")
        assert message == "A newer session of the same participant publishes here now."
        assert await chromium.run("return millrace.publish.root.dataset.state", "second") == "connected"


async def test_the_page_says_what_a_server_with_keys_wants(chromium: Browser) -> None:
    async with Relay(settings={"auth.keys": f'{{ devkey = "{SECRET}" }}'}) as relay:
        await chromium.goto(f"{relay.url}/?watch=demo")
        await until(chromium, f"{WATCH_STATE} === 'failed'")
        message = await chromium.run("return document.querySelector('#watch .message.error').innerText")
        assert "access token" in message
        assert await chromium.run("return document.querySelector('.access').open")
        await shoot(chromium, "page-token")
