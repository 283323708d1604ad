"""A call between two workers, watched from its viewer: when packets came, and what its connection says of itself. It
must never know what is done to the relay meanwhile. Read next: `tests/system/test_adoption.py`.
"""

import asyncio
import itertools
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.clients.aiortc_client import Publisher, Viewer
from tests.system.relay_process import Relay


class Watched:
    """A viewer's packets as they come out of SRTP, and what its connection says of itself."""

    def __init__(self, viewer: Viewer) -> None:
        self.viewer = viewer
        self.times: list[float] = []
        self.packets: list[tuple[int, int]] = []
        """SSRC and sequence number of each, as they came."""
        self.states: list[str] = []
        for transceiver in viewer.connection.getTransceivers():
            receiver = transceiver.receiver
            receiver._handle_rtp_packet = self._noting(receiver._handle_rtp_packet)
        viewer.connection.on("connectionstatechange", self._note_state)
        viewer.connection.on("iceconnectionstatechange", self._note_state)

    def gap(self, since: float, end: float | None = None) -> float:
        """The longest time without a packet, seconds, from just before `since` to the last packet, or to `end`."""
        earlier = [at for at in self.times if at <= since]
        later = [at for at in self.times if at > since and (end is None or at < end)]
        times = [*earlier[-1:], *later, *([] if end is None else [end])]
        return max(after - before for before, after in itertools.pairwise(times))

    async def until_packets(self, since: float, count: int, seconds: float = 30.0) -> None:
        async with asyncio.timeout(seconds):
            while sum(at > since for at in reversed(self.times[-count:])) < count:
                await asyncio.sleep(0.01)

    def _noting(self, take):  # type: ignore[no-untyped-def]
        async def noting(packet, arrival_time_ms):  # type: ignore[no-untyped-def]
            self.times.append(time.monotonic())
            self.packets.append((packet.ssrc, packet.sequence_number))
            await take(packet, arrival_time_ms)

        return noting

    def _note_state(self) -> None:
        connection = self.viewer.connection
        self.states.append(f"{connection.connectionState}/{connection.iceConnectionState}")


@asynccontextmanager
async def watched_call(
    relay: Relay, audio: bool = True, viewer_slot: int = 1, tokens: tuple[str | None, str | None] = (None, None)
) -> AsyncIterator[tuple[Publisher, Viewer, Watched]]:
    """A publisher on worker 0 and a viewer of it that plays already."""
    async with (
        Publisher(f"{relay.url}/whip/hall", tokens[0], audio=audio) as publisher,
        Viewer(f"{relay.url}/whep/hall", tokens[1], audio=audio) as viewer,
    ):
        await publisher.open(0)
        await publisher.connected()
        await viewer.open(viewer_slot)
        watched = Watched(viewer)
        await viewer.until_frames(30)
        yield publisher, viewer, watched


def percentile(values: list[float], share: float) -> float:
    """The least that so many are not above: of two, the median is the lesser."""
    return sorted(values)[max(0, math.ceil(len(values) * share) - 1)]


def told(name: str, gaps: list[float]) -> str:
    middle, high, most = percentile(gaps, 0.5), percentile(gaps, 0.95), max(gaps)
    return f"{name}: {len(gaps)} gaps, p50 {middle * 1000:.0f} ms, p95 {high * 1000:.0f} ms, max {most * 1000:.0f} ms"
