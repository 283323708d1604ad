"""A worker that runs short of something turns new clients away, says so, and keeps those that it has; when its
descriptors are all gone it neither spins nor ends.
"""

import asyncio
import json
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from millrace.workers.metrics.processes import read_process
from tests.clients.raw_client import RawClient, later_frame, request, until_flows
from tests.system.asking import metrics
from tests.system.relay_process import Relay
from tests.system.worker_pids import pid_by_slot

SESSIONS_REJECTED = 'millrace_sessions_rejected_total{{pressure="{}",slot="0"}}'


async def until_rejected(relay: Relay, pressure: str) -> None:
    """The worker looks once a second."""
    async with asyncio.timeout(30):
        while True:
            answered = request("POST", f"{relay.url}/whep/hall", "no offer", {"Content-Type": "application/sdp"})
            if answered.status == 503:
                break
            assert answered.status == 400
            await asyncio.sleep(0.05)
    assert json.loads(answered.body)["type"] == "urn:millrace:problem:overloaded"
    assert int(answered.headers["Retry-After"]) > 0
    async with asyncio.timeout(20):
        while metrics(relay)[SESSIONS_REJECTED.format(pressure)] == 0:
            await asyncio.sleep(0.05)


async def until_let_in(relay: Relay) -> None:
    """As soon as it has looked again."""
    async with asyncio.timeout(30):
        while request("POST", f"{relay.url}/whep/hall", "no offer", {"Content-Type": "application/sdp"}).status == 503:
            await asyncio.sleep(0.05)
    with RawClient(f"{relay.url}/whep/hall") as late:
        late.post().connect()


@contextmanager
def descriptors_limited(pid: int, spare: int) -> Iterator[None]:
    """So many more than it has open."""
    found = read_process(pid)
    assert found is not None
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (found.descriptors + spare, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


def flows(publisher: RawClient, viewer: RawClient, number: int) -> bool:
    """Whether what one sends comes out at the other."""
    mark = f"frame {number}".encode()
    publisher.send(publisher.packet(later_frame(number) + mark))
    return any(packet.endswith(mark) for packet in viewer.media(5.0))


async def test_memory_that_runs_short_turns_clients_away() -> None:
    async with Relay(workers=1, settings={"limits.spare_memory_bytes": str(1 << 40)}) as relay:
        await until_rejected(relay, "memory")
        assert request("GET", f"{relay.admin}/healthz").status == 200


@contextmanager
def slowed_down(pid: int) -> Iterator[None]:
    """It runs for a quarter of the time, as on a machine that others keep busy."""
    over = threading.Event()

    def pulse() -> None:
        while not over.is_set():
            os.kill(pid, signal.SIGSTOP)
            over.wait(0.3)
            os.kill(pid, signal.SIGCONT)
            over.wait(0.1)

    pulsing = threading.Thread(target=pulse)
    pulsing.start()
    try:
        yield
    finally:
        over.set()
        pulsing.join()


async def test_a_late_worker_turns_clients_away_until_it_has_time_again() -> None:
    async with Relay(workers=1, settings={"limits.late_ms": "50", "workers.beat_seconds": "10"}) as relay:
        with slowed_down(pid_by_slot(relay)[0]):
            await until_rejected(relay, "late")
        await until_let_in(relay)


async def test_a_worker_without_descriptors_keeps_its_calls_and_its_temper() -> None:
    async with Relay(workers=1) as relay:
        with (
            RawClient(f"{relay.url}/whip/hall") as publisher,
            RawClient(f"{relay.url}/whep/hall") as viewer,
            ExitStack() as flood,
        ):
            publisher.post().connect()
            viewer.post().connect()
            until_flows(publisher, viewer)
            assert flows(publisher, viewer, 1)
            pid = pid_by_slot(relay)[0]
            with descriptors_limited(pid, 24):
                await until_rejected(relay, "descriptors")
                for _ in range(200):
                    connection = flood.enter_context(socket.socket())
                    connection.setblocking(False)
                    connection.connect_ex(("127.0.0.1", relay.http_port))
                before, since = relay.cpu_seconds(), time.monotonic()
                for number in range(2, 12):
                    assert publisher.check()
                    assert viewer.check()
                    assert flows(publisher, viewer, number)
                    await asyncio.sleep(0.1)
                spent = (relay.cpu_seconds() - before) / (time.monotonic() - since)
                assert spent < 0.5, f"{spent:.0%} of a core"
            flood.close()
            async with asyncio.timeout(30):
                while request("GET", f"{relay.admin}/healthz").status != 200:
                    await asyncio.sleep(0.05)
            assert pid_by_slot(relay)[0] == pid
            os.kill(pid, 0)
            await until_let_in(relay)
