"""H264 whose SPS and PPS come once, as hardware encoders and GStreamer without `config-interval` send it: whoever comes
later has a decoder that begins without them. Read next: `parameter_sets.rs` in `relay/engine/core`.
"""

import asyncio
import base64
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from fractions import Fraction

import av
import pytest
from aiortc.codecs.h264 import H264Encoder

from tests.clients.aiortc_client import Viewer
from tests.clients.raw_client import RawClient
from tests.system.relay_process import Relay
from tests.system.worker_pids import pid_by_slot, until_gone

FORMAT = "packetization-mode=1;level-asymmetry-allowed=1;profile-level-id=42e01f"
SPS, PPS, IDR = 7, 8, 5
PICTURES = 30
"""From one key frame to the next: a second."""


def units(annex_b: bytes) -> list[bytes]:
    return [bytes(unit) for unit in H264Encoder._split_bitstream(annex_b)]


def kind(unit: bytes) -> int:
    return unit[0] & 31


def encoded() -> list[list[bytes]]:
    """The units of each picture of a second; the first is a key frame and has the parameter sets."""
    context = av.CodecContext.create("libx264", "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height, context.pix_fmt = 320, 240, "yuv420p"
    context.framerate, context.time_base = Fraction(30), Fraction(1, 30)
    context.gop_size = 10 * PICTURES
    context.options = {"profile": "baseline", "tune": "zerolatency", "x264-params": "aud=0:repeat-headers=1"}
    packets = []
    for number in range(PICTURES):
        picture = av.VideoFrame(320, 240, "yuv420p")
        for plane in picture.planes:
            plane.update(bytes([100 + number]) * plane.buffer_size)
        picture.pts = number
        packets += context.encode(picture)
    packets += context.encode(None)
    pictures = [units(bytes(packet)) for packet in packets]
    assert len(pictures) == PICTURES
    assert {SPS, PPS, IDR} <= {kind(unit) for unit in pictures[0]}
    return pictures


def payloads(of_picture: list[bytes]) -> list[bytes]:
    packed = [H264Encoder._packetize_fu_a(unit) if len(unit) > 1100 else [unit] for unit in of_picture]
    return [payload for each in packed for payload in each]


def second_after_second(pictures: list[list[bytes]], first_too: bool) -> Iterator[list[bytes]]:
    """Pictures for ever; parameter sets with the first one only, or with none."""
    bare = [[unit for unit in picture if kind(unit) not in (SPS, PPS)] for picture in pictures]
    if first_too:
        yield pictures[0]
        yield from bare[1:]
    while True:
        yield from bare


@asynccontextmanager
async def publishing(publisher: RawClient, pictures: Iterator[list[bytes]]) -> AsyncIterator[None]:
    async def send() -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number, picture in enumerate(pictures):
            await asyncio.sleep(began + number / 30 - loop.time())
            for packet in publisher.frame(payloads(picture), 9_000 + 3_000 * number):
                publisher.send(packet)

    sending = asyncio.create_task(send())
    try:
        yield
    finally:
        sending.cancel()


@pytest.mark.parametrize("is_in_band", [True, False], ids=["in band once", "in the offer only"])
async def test_a_late_viewer_sees_h264_whose_parameter_sets_came_once(is_in_band: bool) -> None:
    pictures = encoded()
    sets = [unit for unit in pictures[0] if kind(unit) in (SPS, PPS)]
    sprop = ";sprop-parameter-sets=" + ",".join(base64.b64encode(unit).decode() for unit in sets)
    format_parameters = FORMAT if is_in_band else FORMAT + sprop
    async with Relay(workers=2) as relay:
        url = f"{relay.url}/whip/hall"
        with RawClient(url, extensions={}, codec="H264/90000", format_parameters=format_parameters) as publisher:
            await asyncio.to_thread(lambda: publisher.post(0).connect())
            async with publishing(publisher, second_after_second(pictures, is_in_band)):
                await asyncio.sleep(1.5)
                for slot in (0, 1):
                    async with Viewer(f"{relay.url}/whep/hall", audio=False) as viewer:
                        await viewer.open(slot)
                        await viewer.connected()
                        await viewer.until_frames(2 * PICTURES)
                # What a worker knew of them, its successor knows, too.
                victim = pid_by_slot(relay)[0]
                os.kill(victim, signal.SIGKILL)
                await until_gone(victim, 20)
                async with Viewer(f"{relay.url}/whep/hall", audio=False) as viewer:
                    await viewer.open(1)
                    await viewer.connected()
                    await viewer.until_frames(2 * PICTURES)
