"""The master's death: its workers go on without it, the next one takes everything over, and calls go on."""

import asyncio
import os
import signal
import time

import pytest

from tests.clients.aiortc_client import Publisher
from tests.system.asking import counter, delete, patch
from tests.system.relay_process import Relay
from tests.system.watched import told, watched_call

SETTINGS = {"workers.quick_death_seconds": "1"}


@pytest.mark.timing(cores=1)
async def test_calls_outlive_their_master_and_its_successor_has_them_all() -> None:
    async with (
        Relay(workers=2, settings=SETTINGS) as relay,
        watched_call(relay) as (publisher, viewer, watched),
    ):
        states = list(watched.states)
        first, workers = relay.pid, relay.worker_pids()
        killed_at = time.monotonic()
        await relay.kill_master()
        await relay.until_logged("the master is gone", 2)
        await watched.until_packets(time.monotonic(), 60)
        assert relay.worker_pids() == workers, "they go on without it"
        assert [await patch(client) for client in (publisher, viewer)] == [204, 204]
        assert await counter(relay, "millrace_master_up") == 0
        orphaned = watched.gap(killed_at)

        started_at = time.monotonic()
        await relay.start()
        await relay.until_ready()
        await watched.until_packets(time.monotonic() + 0.5, 30)
        taken_over = watched.gap(started_at)
        print(told("master killed", [orphaned]), told("taken over", [taken_over]), sep="\n")
        # Cores that an encoder, a decoder and a Python that starts share: by itself it is a twentieth.
        assert orphaned < 3
        assert taken_over < 5
        assert relay.pid != first
        assert len(relay.worker_pids()) == 2
        assert not set(workers) & set(relay.worker_pids())
        assert await counter(relay, "millrace_master_up") == 1
        assert await counter(relay, "millrace_sessions_adopted_total") == 2
        assert await counter(relay, "millrace_sessions_lost_total") == 0
        assert await counter(relay, 'millrace_drops_total{direction="in",reason="srtp_replay"}') == 0
        assert watched.states == states
        assert [await patch(client) for client in (publisher, viewer)] == [204, 204]
        assert [await delete(client) for client in (viewer, publisher)] == [200, 200]


async def test_orphans_end_when_no_other_master_comes_and_leave_the_ports_free() -> None:
    async with (
        Relay(workers=2, settings=SETTINGS | {"workers.orphan_seconds": "1"}) as relay,
        Publisher(f"{relay.url}/whip/hall", audio=False) as publisher,
    ):
        await publisher.open(0)
        await publisher.connected()
        await relay.kill_master()
        async with asyncio.timeout(30):
            while relay.processes():
                await asyncio.sleep(0.01)
        assert "the worker ends without a master: no other master has come" in relay.log()
        publisher.session_url = ""
        async with asyncio.timeout(20):
            while publisher.connection.connectionState != "closed":
                await asyncio.sleep(0.01)
        await relay.start()
        await relay.until_ready()
        assert await counter(relay, "millrace_sessions_adopted_total") == 0


async def test_a_worker_that_is_asked_to_let_go_stays_while_there_is_no_master() -> None:
    async with (
        Relay(workers=1, settings=SETTINGS) as relay,
        Publisher(f"{relay.url}/whip/hall", audio=False) as publisher,
    ):
        await publisher.open()
        await publisher.connected()
        (worker,) = relay.worker_pids()
        await relay.kill_master()
        await relay.until_logged("the master is gone")
        os.kill(worker, signal.SIGUSR2)
        await relay.start()
        await relay.until_ready()
        assert worker not in relay.worker_pids()
        assert await counter(relay, "millrace_sessions_adopted_total") == 1
        assert await patch(publisher) == 204
