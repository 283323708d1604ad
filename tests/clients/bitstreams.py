"""Small files of moving bars and a tone for clients that send what was encoded before: made by ffmpeg when a test asks.
It must never know who sends them. Read next: `client_process.py`.
"""

import subprocess
from pathlib import Path

import imageio_ffmpeg

SECONDS = 20
"""A file is repeated, so a key frame comes this often without anybody asking: later than a test may wait for one."""
# Only the first frame is a key frame, none is hidden and none waits for a later one. One thread: libvpx's VP8 has its
# threads spin, which takes ten times as long on a busy machine.
_VIDEO = f"-f lavfi -i testsrc2=size=320x240:rate=30:duration={SECONDS} -pix_fmt yuv420p -g 9999 -b:v 400k -threads 1"
_VPX = "-deadline realtime -cpu-used 8 -lag-in-frames 0 -auto-alt-ref 0"
# Delimiters say where a picture begins; its parameter sets stand before it.
_X264 = "-profile:v baseline -preset ultrafast -tune zerolatency -x264-params aud=1:scenecut=0"
_AUDIO = f"-f lavfi -i sine=frequency=440:sample_rate=48000:duration={SECONDS} -ac 2 -b:a 32k"
RECIPES = {
    "VP8": (f"{_VIDEO} -c:v libvpx {_VPX}", "vp8.ivf"),
    "VP9": (f"{_VIDEO} -c:v libvpx-vp9 {_VPX}", "vp9.ivf"),
    "H264": (f"{_VIDEO} -c:v libx264 {_X264}", "picture.h264"),
    # One packet a page, so that a page is what one RTP packet carries.
    "OPUS": (f"{_AUDIO} -c:a libopus -frame_duration 20 -page_duration 20000", "sound.ogg"),
}
"""By codec: what ffmpeg is told, and the file's name."""


def bitstream(codec: str, folder: Path) -> Path:
    """The codec's file in a folder, made if it is not there yet. Raises CalledProcessError if ffmpeg fails."""
    words, name = RECIPES[codec]
    path = folder / name
    if not path.exists():
        # Nobody finds half a file, even if this test is ended meanwhile.
        unfinished = folder / f"unfinished-{name}"
        command = [imageio_ffmpeg.get_ffmpeg_exe(), *["-hide_banner", "-loglevel", "error", "-y"], *words.split()]
        subprocess.run([*command, str(unfinished)], check=True)
        unfinished.rename(path)
    return path
