"""One UDP port, any worker: datagrams find their session's worker with the kernel's help and without."""

import asyncio
import urllib.request
from contextlib import AsyncExitStack

import pytest

from tests.clients.aiortc_client import Publisher, Viewer
from tests.system.relay_process import Relay

MAX_VIEWERS = 12


async def figures(relay: Relay) -> dict[str, float]:
    page = await asyncio.to_thread(lambda: urllib.request.urlopen(f"{relay.admin}/metrics").read().decode())
    lines = (line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}


async def test_workers_hand_over_what_the_kernel_gave_to_the_wrong_one() -> None:
    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(Relay(settings={"media.steering": '"handover"'}))
        publisher = await stack.enter_async_context(Publisher(f"{relay.url}/whip/hall", audio=False))
        await publisher.open(0)
        await publisher.connected()
        # Each client's datagrams go to either worker by chance; after a few, some went to the wrong one.
        for _ in range(MAX_VIEWERS):
            viewer = await stack.enter_async_context(Viewer(f"{relay.url}/whep/hall", audio=False))
            await viewer.open()
            await viewer.until_frames(15)
            if (await figures(relay))["millrace_handovers_out_total"] > 20:
                break
        seen = await figures(relay)
        assert seen["millrace_handovers_out_total"] > 20
        assert seen["millrace_handovers_in_total"] > 20


async def test_the_kernel_delivers_to_the_right_worker_once_it_knows() -> None:
    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(Relay(settings={"media.steering": '"auto"'}))
        if "workers hand over" in relay.log():
            pytest.skip("loading a program takes a privilege that is missing here")
        publisher = await stack.enter_async_context(Publisher(f"{relay.url}/whip/hall", audio=False))
        viewers = [await stack.enter_async_context(Viewer(f"{relay.url}/whep/hall", audio=False)) for _ in range(3)]
        await publisher.open(1)
        for slot, viewer in enumerate(viewers):
            await viewer.open(slot % 2)
            await viewer.until_frames(15)
        before = (await figures(relay))["millrace_handovers_out_total"]
        await viewers[0].until_frames(len(viewers[0].frames) + 30)
        assert (await figures(relay))["millrace_handovers_out_total"] == before
