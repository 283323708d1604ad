"""Publishers and viewers in this process, with aiortc. They know WHIP and WHEP and must never know how the relay
works, but for the slot in a session's URL. Read next: `tests/system/test_calls.py`.
"""

import array
import asyncio
import itertools
import math
from collections.abc import Callable, Sequence
from types import TracebackType

import aiohttp
import av
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCSessionDescription,
    VideoStreamTrack,
)
from aiortc.mediastreams import AudioStreamTrack, MediaStreamError
from yarl import URL

MAX_POSTS = 100


class Picture(VideoStreamTrack):
    """A grey picture, whose brightness says which publisher it is, with a bar that moves."""

    def __init__(self, brightness: int, width: int = 320, height: int = 240) -> None:
        super().__init__()
        self._brightness = brightness
        self._width, self._height = width, height
        self._bar = 0

    async def recv(self) -> av.VideoFrame:
        """30 frames a second."""
        time, base = await self.next_timestamp()
        self._bar = (self._bar + 4) % (self._width - 8)
        frame = av.VideoFrame(self._width, self._height, "yuv420p")
        luma, *chroma = frame.planes
        row = bytearray([self._brightness]) * luma.line_size
        row[self._bar : self._bar + 8] = bytes([255 - self._brightness]) * 8
        luma.update(bytes(row) * self._height)
        for plane in chroma:
            plane.update(bytes([128]) * plane.buffer_size)
        frame.pts, frame.time_base = time, base
        return frame


class Tone(AudioStreamTrack):
    """440 Hz."""

    async def recv(self) -> av.AudioFrame:
        """20 ms."""
        frame = await super().recv()
        start, rate = frame.pts or 0, frame.sample_rate
        wave = (int(8000 * math.sin(2 * math.pi * 440 * (start + n) / rate)) for n in range(frame.samples))
        frame.planes[0].update(array.array("h", wave).tobytes())
        return frame


class Client:
    """One session. `async with` ends it with DELETE."""

    def __init__(self, url: str, token: str | None = None, ice_servers: Sequence[RTCIceServer] = ()) -> None:
        self.url = url
        """`.../whip/{room}` or `.../whep/{room}`."""
        # Without a list aiortc asks a public server.
        self.connection = RTCPeerConnection(RTCConfiguration(list(ice_servers)))
        self.session_url = ""
        self.etag = ""
        self.http: Callable[[], aiohttp.ClientSession] = aiohttp.ClientSession
        """Makes what requests go through."""
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def session(self) -> str:
        """The session's id."""
        return self.session_url.rpartition("/")[2]

    @property
    def slot(self) -> int:
        """Which worker has it."""
        return int(self.session[:2], 16)

    async def open(self, slot: int | None = None) -> None:
        """Offers, and takes the answer. With `slot`, offers until that worker's listener happens to take it."""
        offer = await self.connection.createOffer()
        await self.connection.setLocalDescription(offer)
        answer = await self._post(slot)
        await self.connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    async def connected(self, seconds: float = 20.0) -> None:
        """Waits for ICE and DTLS."""
        async with asyncio.timeout(seconds):
            while self.connection.connectionState != "connected":
                assert self.connection.connectionState not in ("failed", "closed")
                await asyncio.sleep(0.005)

    async def close(self) -> None:
        """Ends the session at both ends."""
        if self.session_url:
            async with self.http() as http, http.delete(self.session_url, headers=self._headers):
                self.session_url = ""
        await self.connection.close()

    async def _post(self, slot: int | None) -> str:
        headers = self._headers | {"Content-Type": "application/sdp"}
        for _ in range(MAX_POSTS):
            # A connection of its own each time: the kernel chooses the worker by its ports.
            async with self.http() as http:
                async with http.post(self.url, data=self.connection.localDescription.sdp, headers=headers) as answer:
                    text = await answer.text()
                    assert answer.status == 201, f"{answer.status}: {text}"
                    self.session_url = str(answer.url.join(URL(answer.headers["Location"])))
                    self.etag = answer.headers["ETag"]
                if slot is None or self.slot == slot:
                    return text
                async with http.delete(self.session_url, headers=self._headers):
                    pass
        raise AssertionError(f"no POST of {MAX_POSTS} went to worker {slot}")


class Publisher(Client):
    """Sends a picture and a tone."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        brightness: int = 200,
        audio: bool = True,
        ice_servers: Sequence[RTCIceServer] = (),
    ) -> None:
        super().__init__(url, token, ice_servers)
        self.connection.addTrack(Picture(brightness))
        if audio:
            self.connection.addTrack(Tone())


class Viewer(Client):
    """Counts and keeps what it decodes."""

    def __init__(
        self, url: str, token: str | None = None, audio: bool = True, ice_servers: Sequence[RTCIceServer] = ()
    ) -> None:
        super().__init__(url, token, ice_servers)
        self.frames: list[tuple[float, float]] = []
        """When each picture was decoded, and how bright it was on average."""
        self.loudness: list[float] = []
        """Of each 20 ms of sound, root mean square."""
        self._tasks: list[asyncio.Task[None]] = []
        self.connection.addTransceiver("video", direction="recvonly")
        if audio:
            self.connection.addTransceiver("audio", direction="recvonly")
        self.connection.on("track", self._take)

    async def until_frames(self, count: int, seconds: float = 30.0) -> None:
        """Waits until so many pictures were decoded in all."""
        async with asyncio.timeout(seconds):
            while len(self.frames) < count:
                await asyncio.sleep(0.005)

    async def close(self) -> None:
        """And reads no more."""
        for task in self._tasks:
            task.cancel()
        await super().close()

    def longest_gap(self, since: float = 0.0) -> float:
        """Seconds between two decoded pictures, at most."""
        times = [at for at, _ in self.frames if at >= since]
        return max((later - earlier for earlier, later in itertools.pairwise(times)), default=0.0)

    def _take(self, track: MediaStreamTrack) -> None:
        reading = self._read_video(track) if track.kind == "video" else self._read_audio(track)
        self._tasks.append(asyncio.ensure_future(reading))

    async def _read_video(self, track: MediaStreamTrack) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                frame = await track.recv()
                assert isinstance(frame, av.VideoFrame)
                # A decoder's lines are padded: one line from the middle, without what lies beyond the picture.
                plane = frame.planes[0]
                line = frame.height // 2 * plane.line_size
                luma = bytes(plane)[line : line + frame.width]
                self.frames.append((loop.time(), sum(luma) / len(luma)))
        except MediaStreamError:
            return

    async def _read_audio(self, track: MediaStreamTrack) -> None:
        try:
            while True:
                frame = await track.recv()
                assert isinstance(frame, av.AudioFrame)
                samples = array.array("h", bytes(frame.planes[0])[: frame.samples * 2])
                self.loudness.append(math.sqrt(sum(sample * sample for sample in samples) / len(samples)))
        except MediaStreamError:
            return
