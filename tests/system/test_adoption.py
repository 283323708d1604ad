"""Sessions outlive their worker: kill -9 of each in turn, in the middle of calls, and no client has to do anything."""

import asyncio
import itertools
import os
import re
import signal
import time

import aiohttp
import pytest

from tests.clients.aiortc_client import Publisher, Viewer
from tests.clients.raw_client import RawClient, request
from tests.system.asking import counter, delete, patch
from tests.system.relay_process import Relay
from tests.system.watched import Watched, percentile, told, watched_call
from tests.system.worker_pids import pid_by_slot, until_gone

ROUNDS = 3
SETTINGS = {"workers.quick_death_seconds": "1", "log.level": '"debug"'}
"""So that no kill of this test counts as part of a crash loop."""


@pytest.mark.timing(cores=1)
async def test_calls_go_on_while_their_workers_are_killed_one_after_the_other() -> None:
    async with Relay(workers=2, settings=SETTINGS) as relay:
        publishers = [Publisher(f"{relay.url}/whip/room-{slot}") for slot in (0, 1)]
        viewers = [Viewer(f"{relay.url}/whep/room-{room}") for room, _ in itertools.product((0, 1), (0, 1))]
        for publisher, slot in zip(publishers, (0, 1), strict=True):
            await publisher.open(slot)
            await publisher.connected()
        for viewer, slot in zip(viewers, (0, 1, 0, 1), strict=True):
            await viewer.open(slot)
        watched = [Watched(viewer) for viewer in viewers]
        for viewer in viewers:
            await viewer.connected()
            await viewer.until_frames(30)
        states = [list(one.states) for one in watched]
        sessions = [client.session_url for client in (*publishers, *viewers)]
        victims: list[float] = []
        others: dict[int, list[float]] = {0: [], 1: []}
        """By the slot whose worker was killed: one viewer has nothing to do with it."""

        for _, slot in itertools.product(range(ROUNDS), (0, 1)):
            pid = pid_by_slot(relay)[slot]
            killed_at = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            await until_gone(pid, 5)
            for one in watched:
                await one.until_packets(killed_at + 1.0, 30)
            for room, one in zip((0, 0, 1, 1), watched, strict=True):
                # The feed of either side's worker stops: the one that opens, or the one that seals.
                hit = slot in (room, one.viewer.slot)
                (victims if hit else others[slot]).append(one.gap(killed_at))
            await relay.until_ready()
            assert [await patch(client) for client in (*publishers, *viewers)] == [204] * 6

        print(told("victims", victims), told("others", others[0] + others[1]), sep="\n")
        print(*[line for line in relay.log().splitlines() if "after_ms" in line][-4:], sep="\n")
        for figure in ("worker_engine_started_seconds", "worker_control_started_seconds"):
            async with aiohttp.ClientSession() as http, http.get(f"{relay.admin}/metrics") as answer:
                print(*re.findall(rf"^millrace_{figure}.*$", await answer.text(), re.MULTILINE), sep="\n")
        # On two cores that two encoders and four decoders share; by itself the gap is a tenth of it.
        assert percentile(victims, 0.5) < 2
        assert max(victims) < 5
        assert max(percentile(gaps, 0.5) for gaps in others.values()) < 2
        assert [one.states for one in watched] == states
        assert all(client.connection.connectionState == "connected" for client in (*publishers, *viewers))
        assert [client.session_url for client in (*publishers, *viewers)] == sessions
        # Three sessions lived on each worker.
        assert await counter(relay, "millrace_sessions_adopted_total") == ROUNDS * 2 * 3
        assert await counter(relay, "millrace_sessions_lost_total") == 0
        assert await counter(relay, 'millrace_drops_total{direction="in",reason="srtp_replay"}') == 0
        # Each kill of a worker with sessions was timed.
        assert await counter(relay, "millrace_adoption_gap_seconds_count") == 2 * ROUNDS
        assert len(relay.worker_pids()) == 2
        for viewer in viewers:
            before = len(viewer.frames)
            await viewer.until_frames(before + 10)
        assert [await delete(client) for client in (*viewers, *publishers)] == [200] * 6
        for client in (*viewers, *publishers):
            await client.close()


@pytest.mark.timing(cores=1)
async def test_both_workers_may_be_killed_at_once() -> None:
    async with (
        Relay(workers=2, settings=SETTINGS) as relay,
        watched_call(relay, audio=False) as (publisher, viewer, watched),
    ):
        states = list(watched.states)
        await asyncio.sleep(1.0)  # No crash loop: each worker has lived for a second.
        killed_at = time.monotonic()
        pids = pid_by_slot(relay)
        for pid in pids.values():
            os.kill(pid, signal.SIGKILL)
        for pid in pids.values():
            await until_gone(pid, 5)
        await watched.until_packets(killed_at + 1.0, 30)
        print(told("all at once", [watched.gap(killed_at)]))
        assert watched.gap(killed_at) < 5
        await relay.until_ready()
        assert watched.states == states
        assert [await patch(client) for client in (publisher, viewer)] == [204, 204]
        assert [await delete(client) for client in (viewer, publisher)] == [200, 200]


async def test_a_client_that_leaves_after_its_worker_was_killed_is_noticed_at_once() -> None:
    async with Relay(workers=1, settings=SETTINGS) as relay:
        with RawClient(f"{relay.url}/whep/hall") as client:
            client.post().connect()
            pid = pid_by_slot(relay)[0]
            os.kill(pid, signal.SIGKILL)
            await until_gone(pid, 5)
            await relay.until_ready()
            client.say_goodbye()
            deadline = time.monotonic() + 20
            # Without the goodbye it would take `timeouts.consent_seconds`.
            while (found := request("GET", f"{relay.admin}/sessions/{client.session}").body).find(
                '"closed_by_peer"'
            ) < 0:
                assert time.monotonic() < deadline, found
                await asyncio.sleep(0.02)
