"""Publishers and viewers on two libraries that others build on, pion (Go) and libdatachannel (OBS), each with the other
on another worker: what comes out is byte for byte what was encoded. Read next: `tests/clients/client_process.py`.
"""

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.clients.bitstreams import bitstream
from tests.clients.client_process import PROGRAMS, ClientProcess
from tests.system.asking import until_moved
from tests.system.namespace import lose, network_namespace
from tests.system.relay_process import Relay
from tests.system.worker_pids import pid_by_slot, until_gone

FRAMES = {"video": 60, "audio": 50}
"""So many are watched: two seconds of pictures, one of sound."""

CALLS = list(itertools.product(PROGRAMS, ("H264", "VP8", "VP9"), PROGRAMS))


@pytest.fixture(scope="session")
def streams(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("streams")


@pytest.fixture
def namespace() -> Iterator[None]:
    with network_namespace():
        yield


@pytest.mark.parametrize(("publisher", "codec", "viewer"), CALLS)
async def test_a_viewer_gets_each_frame_as_it_was_encoded(
    relay: Relay, streams: Path, publisher: str, codec: str, viewer: str
) -> None:
    files = {"video": bitstream(codec, streams), "audio": bitstream("OPUS", streams)}
    async with ClientProcess(publisher, "publish", f"{relay.url}/whip/hall", slot=0, **files) as sender:
        await sender.until("sent", "video")
        async with ClientProcess(viewer, "watch", f"{relay.url}/whep/hall", slot=1, **files) as receiver:
            for kind, name in (("video", codec), ("audio", "opus")):
                received = await receiver.until("received", kind, frames=FRAMES[kind], like_file=FRAMES[kind])
                assert received["codec"] == f"{kind}/{name}"
                assert received["like_file"] == received["frames"]
            # The viewer asked for a key frame, so the publisher's file began again.
            await sender.until("sent", "video", key_frame_requests=1)
            await receiver.until("received", "video", key_frames=2)
            assert await receiver.end() == 0
        assert await sender.end() == 0
    for client in (sender, receiver):
        assert client.last["ended", ""]["status"] == 200


@pytest.mark.parametrize(("publisher", "codec"), [("pion", "VP8"), ("libdatachannel", "H264")])
async def test_a_viewer_that_came_first_gets_its_publisher(
    relay: Relay, streams: Path, publisher: str, codec: str
) -> None:
    files = {"video": bitstream(codec, streams), "audio": bitstream("OPUS", streams)}
    async with ClientProcess("pion", "watch", f"{relay.url}/whep/hall", slot=1, **files) as receiver:
        await receiver.until("connected")
        async with ClientProcess(publisher, "publish", f"{relay.url}/whip/hall", slot=0, **files):
            await receiver.until("received", "video", like_file=FRAMES["video"], key_frames=1)
            await receiver.until("received", "audio", like_file=FRAMES["audio"])


async def test_the_codec_that_a_publisher_chose_of_several_outlives_its_worker_and_a_move(
    relay: Relay, streams: Path
) -> None:
    """pion offers VP8 first, and sends H264. Who comes afterwards is told what is in use by those who went on."""
    files = {"video": bitstream("H264", streams), "audio": bitstream("OPUS", streams)}

    async def watch(slot: int) -> None:
        async with ClientProcess("pion", "watch", f"{relay.url}/whep/hall", slot=slot, **files) as receiver:
            received = await receiver.until("received", "video", like_file=FRAMES["video"], key_frames=1)
            assert received["codec"] == "video/H264"

    async with ClientProcess("pion", "publish", f"{relay.url}/whip/hall", slot=0, **files) as sender:
        await sender.until("sent", "video")
        await watch(1)
        pid = pid_by_slot(relay)[0]
        os.kill(pid, signal.SIGKILL)
        await until_gone(pid, 10)
        await watch(1)
        session = sender.last["answered", ""]["session"]
        await until_moved(relay, session, 1)
        await watch(0)
        assert await sender.end() == 0


@pytest.mark.parametrize("viewer", PROGRAMS)
async def test_h264_that_does_not_say_its_packetization_mode_is_watched(
    relay: Relay, streams: Path, viewer: str
) -> None:
    files = {"video": bitstream("H264", streams), "audio": bitstream("OPUS", streams)}
    fmtp = "profile-level-id=42e01f"
    sender = ClientProcess("libdatachannel", "publish", f"{relay.url}/whip/hall", fmtp=fmtp, slot=0, **files)
    async with sender:
        await sender.until("connected")
        async with ClientProcess(viewer, "watch", f"{relay.url}/whep/hall", slot=1, **files) as receiver:
            await receiver.until("received", "video", like_file=FRAMES["video"], key_frames=2)


async def test_a_viewer_that_goes_on_asking_for_what_it_was_sent_is_not_answered_for_ever(
    namespace: None, streams: Path
) -> None:
    """pion 4 asks each tenth of a second for what once was lost, whatever came by RTX, until 512 later packets came."""
    files = {"video": bitstream("VP8", streams), "audio": bitstream("OPUS", streams)}
    async with (
        Relay() as relay,
        ClientProcess("libdatachannel", "publish", f"{relay.url}/whip/hall", slot=0, **files),
        ClientProcess("pion", "watch", f"{relay.url}/whep/hall", slot=1, **files) as receiver,
    ):
        await receiver.until("received", "video", frames=FRAMES["video"])
        lose(5, relay.media_port)
        await receiver.until("received", "audio", frames=500)
        session = receiver.last["answered", ""]["session"].rpartition("/")[2]
        async with aiohttp.ClientSession() as http, http.get(f"{relay.admin}/sessions/{session}") as answer:
            sent = (await answer.json())["transport"]["subscriptions"]
        # One packet in twenty is lost, and so is one repair in twenty; each is sent twice under loss.
        assert sum(one["retransmitted"] for one in sent) < sum(one["packets"] for one in sent) / 2


async def test_a_call_of_trickled_candidates_outlives_an_ice_restart_at_both_ends(relay: Relay, streams: Path) -> None:
    files = {"video": bitstream("VP8", streams), "audio": bitstream("OPUS", streams)}
    arguments = ("--trickle", "--restart=1s")
    sender = ClientProcess("pion", "publish", f"{relay.url}/whip/hall", *arguments, slot=0, **files)
    receiver = ClientProcess("pion", "watch", f"{relay.url}/whep/hall", *arguments, slot=1, **files)
    async with sender, receiver:
        for client in (sender, receiver):
            await client.until("restarted")
        for kind, least in FRAMES.items():
            before = (await receiver.until("received", kind))["like_file"]
            await receiver.until("received", kind, like_file=before + least)
