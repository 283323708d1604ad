"""An ffmpeg publisher over WHIP: H264, Opus, `setup:passive` and no candidates, as the muxer does by default."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import imageio_ffmpeg

PICTURE_AND_TONE = (
    "-hide_banner -loglevel warning -re "
    "-f lavfi -i testsrc2=size=320x240:rate=30 -f lavfi -i sine=frequency=440:sample_rate=48000"
)
H264 = "-c:v libx264 -profile:v {profile} -preset ultrafast -tune zerolatency -g 30 -b:v 400k -pix_fmt yuv420p"
OPUS = "-c:a libopus -ac 2 -b:a 32k"


@contextlib.asynccontextmanager
async def publish_with_ffmpeg(
    url: str, seconds: int = 60, profile: str = "baseline"
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Publishes moving bars and a tone to `url` while the block runs; ffmpeg's own words go to stderr."""
    process = await asyncio.create_subprocess_exec(
        imageio_ffmpeg.get_ffmpeg_exe(),
        *f"{PICTURE_AND_TONE} {H264.format(profile=profile)} {OPUS}".split(),
        *("-t", str(seconds), "-f", "whip", url),
        stdin=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(process.wait(), 5)
        if process.returncode is None:
            process.kill()
            await process.wait()
