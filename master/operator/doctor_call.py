"""A real call through a running server: publishes a picture by WHIP, watches it by WHEP, counts decoded frames. It
must never know how the server works. Read next: `master/operator/doctor.py`, which prints the finding.
"""

import asyncio
import itertools
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urljoin

from aiortc import RTCPeerConnection, RTCSessionDescription, VideoStreamTrack
from aiortc.mediastreams import MediaStreamError

from millrace.master.operator.doctor import Finding, Verdict
from millrace.relay.access.grants import make_token
from millrace.relay.config.model import Config

FRAMES = 30
SECONDS = 20.0


def call(url: str, config: Config) -> Finding:
    """Publishes and watches for about a second."""
    room = f"doctor-{secrets.token_hex(4)}"
    try:
        return asyncio.run(_call(url.rstrip("/"), room, token_for(config, room)))
    except urllib.error.HTTPError as error:
        return Finding(Verdict.BAD, "a call", f"{url} answers {error.code}: {error.read(300).decode(errors='replace')}")
    except TimeoutError:
        detail = (
            f"no {FRAMES} frames within {SECONDS:.0f} s: are the ports of media open, and is media.announced right?"
        )
        return Finding(Verdict.BAD, "a call", detail)
    except OSError as error:
        return Finding(Verdict.BAD, "a call", f"{url}: {error}")


async def _call(url: str, room: str, token: str | None) -> Finding:
    began = time.monotonic()
    async with asyncio.timeout(SECONDS):
        publisher = RTCPeerConnection()
        publisher.addTrack(VideoStreamTrack())
        viewer = RTCPeerConnection()
        viewer.addTransceiver("video", direction="recvonly")
        times: list[float] = []
        arrived = asyncio.Event()

        async def read(track: VideoStreamTrack) -> None:
            try:
                while len(times) < FRAMES:
                    await track.recv()
                    times.append(time.monotonic())
            except MediaStreamError:
                return
            arrived.set()

        tasks: list[asyncio.Task[None]] = []
        viewer.on("track", lambda track: tasks.append(asyncio.ensure_future(read(track))))
        try:
            async with _session(publisher, f"{url}/whip/{room}", token), _session(viewer, f"{url}/whep/{room}", token):
                await arrived.wait()
        finally:
            for task in tasks:
                task.cancel()
            await viewer.close()
            await publisher.close()
    longest = max(later - earlier for earlier, later in itertools.pairwise(times))
    detail = f"first frame after {times[0] - began:.2f} s, {FRAMES} frames, longest gap {longest * 1000:.0f} ms"
    return Finding(Verdict.GOOD, "a call", detail)


@asynccontextmanager
async def _session(connection: RTCPeerConnection, url: str, token: str | None) -> AsyncIterator[None]:
    await connection.setLocalDescription(await connection.createOffer())
    offer = connection.localDescription.sdp.encode()
    answer, location = await asyncio.to_thread(_request, "POST", url, token, offer)
    try:
        await connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        yield
    finally:
        await asyncio.to_thread(_request, "DELETE", urljoin(url, location), token, None)


def _request(method: str, url: str, token: str | None, body: bytes | None) -> tuple[str, str]:
    headers = {"Content-Type": "application/sdp"} | ({"Authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(url, body, headers, method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode(), answer.headers.get("Location", "")


def token_for(config: Config, room: str) -> str | None:
    """Returns a token for that room of the first configured key; None when there is no key."""
    if not config.auth.keys:
        return None
    key, secret = next(iter(config.auth.keys.items()))
    return make_token(
        key, secret, identity="doctor", room=room, expires_at=time.time() + 300, can_publish=True, can_subscribe=True
    )
