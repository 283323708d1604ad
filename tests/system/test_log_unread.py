"""A log that nobody takes stops nothing: not the requests, not the master, not a worker's successor. Read next:
`workers/lines.py` and `master/start/streams.py`.
"""

import asyncio
import fcntl
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import pytest

from tests.clients.raw_client import request
from tests.system.asking import metrics
from tests.system.posts import OFFER
from tests.system.relay_process import Relay

STOP, GO_ON = b"\x13", b"\x11"
"""Ctrl-S and Ctrl-Q."""


class Collector:
    """Takes a server's output, or does not."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        if kind == "pipe":
            self.reading, self.writing = os.pipe()
        elif kind == "terminal":
            self.reading, self.writing = os.openpty()
        else:
            ours, theirs = socket.socketpair()
            # The least that the kernel gives.
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
            self.reading, self.writing = ours.detach(), theirs.detach()
        os.set_blocking(self.reading, False)
        self.flags = fcntl.fcntl(self.writing, fcntl.F_GETFL)

    def stand_still(self) -> None:
        """Takes nothing any more, and is full."""
        if self.kind == "terminal":
            os.write(self.reading, STOP)
            return
        if self.kind == "pipe":
            # An own open file, as the server's must not be changed.
            filling = os.open(f"/proc/self/fd/{self.writing}", os.O_WRONLY | os.O_NONBLOCK)
            with suppress(BlockingIOError):
                while True:
                    os.write(filling, b"." * 512)
            os.close(filling)
            return
        with socket.socket(fileno=os.dup(self.writing)) as filling_socket, suppress(BlockingIOError):
            while True:
                filling_socket.send(b"." * 512, socket.MSG_DONTWAIT)

    def go_on(self) -> None:
        if self.kind == "terminal":
            os.write(self.reading, GO_ON)

    def read(self) -> str:
        """What is there now."""
        taken = b""
        with suppress(BlockingIOError):
            while piece := os.read(self.reading, 65536):
                taken += piece
        return taken.decode(errors="replace")

    def close(self) -> None:
        os.close(self.reading)
        os.close(self.writing)


@contextmanager
def collector(kind: str) -> Iterator[Collector]:
    made = Collector(kind)
    try:
        yield made
    finally:
        made.close()


@dataclass
class Collected(Relay):
    """Logs to a collector."""

    collector: Collector | None = None

    def streams(self) -> dict[str, int]:
        assert self.collector is not None
        return {"stdout": self.collector.writing, "stderr": self.collector.writing}


@dataclass
class Closed(Relay):
    """Is started with its standard streams closed."""

    def launcher(self) -> list[str]:
        return ["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]


def open_and_close(relay: Relay, count: int) -> None:
    for number in range(count):
        headers = {"Content-Type": "application/sdp"}
        opened = request("POST", f"{relay.url}/whep/room-{number}", OFFER, headers)
        assert opened.status == 201
        assert request("DELETE", relay.url + opened.headers["Location"]).status == 200


async def kill_one(relay: Relay) -> None:
    """Kills a worker, and waits for its successor."""
    victim = relay.worker_pids()[0]
    os.kill(victim, signal.SIGKILL)
    async with asyncio.timeout(30):
        while victim in relay.worker_pids() or len(relay.worker_pids()) < 2:
            await asyncio.sleep(0.02)
    await relay.until_ready()


@pytest.mark.parametrize("kind", ["pipe", "terminal", "socket"])
async def test_server_goes_on_when_nobody_takes_its_log(kind: str) -> None:
    with collector(kind) as taker:
        async with Collected(collector=taker) as relay:
            before = taker.read()
            assert "all workers serve" in before
            taker.stand_still()
            await asyncio.to_thread(open_and_close, relay, 20)
            await kill_one(relay)
            os.kill(relay.pid, signal.SIGHUP)
            await asyncio.to_thread(open_and_close, relay, 20)
            async with asyncio.timeout(30):
                while not (counted := dropped(relay))["master"] or not (counted["0"] or counted["1"]):
                    await asyncio.sleep(0.1)
            assert fcntl.fcntl(taker.writing, fcntl.F_GETFL) == taker.flags, "others have the stream, too"
            said = ""
            taker.go_on()
            async with asyncio.timeout(30):
                while said.count("were dropped") < 1 + sum(1 for slot in ("0", "1") if counted[slot]):
                    said += taker.read()
                    await asyncio.sleep(0.02)
            assert "WARNING master" in said
            reading = asyncio.create_task(keep_reading(taker))
            await relay.stop()
            reading.cancel()


async def keep_reading(taker: Collector) -> None:
    while True:
        taker.read()
        await asyncio.sleep(0.02)


def dropped(relay: Relay) -> dict[str, float]:
    prefix = 'millrace_log_lines_dropped_total{slot="'
    return {name[len(prefix) : -2]: n for name, n in metrics(relay).items() if name.startswith(prefix)}


@pytest.mark.parametrize("kind", ["pipe", "terminal", "socket"])
async def test_server_is_stopped_while_nobody_takes_its_log(kind: str) -> None:
    with collector(kind) as taker:
        async with Collected(collector=taker) as relay:
            taker.stand_still()
            open_and_close(relay, 5)


@pytest.mark.parametrize("kind", ["pipe", "terminal"])
async def test_worker_that_hangs_is_replaced_while_nobody_takes_its_traceback(kind: str) -> None:
    settings = {"workers.beat_seconds": "2", "workers.abort_seconds": "60"}
    with collector(kind) as taker:
        async with Collected(collector=taker, settings=settings) as relay:
            taker.stand_still()
            victim = relay.worker_pids()[0]
            os.kill(victim, signal.SIGSTOP)
            began = time.monotonic()
            async with asyncio.timeout(50):
                while victim in relay.worker_pids():
                    await asyncio.sleep(0.02)
            assert time.monotonic() - began < 50, "it ended by itself, not by SIGKILL"
            await relay.until_ready()


async def test_server_starts_with_its_streams_closed() -> None:
    async with Closed() as relay:
        for pid in relay.processes():
            for descriptor in range(3):
                assert os.readlink(f"/proc/{pid}/fd/{descriptor}") == os.devnull
        open_and_close(relay, 2)
        await kill_one(relay)
        open_and_close(relay, 2)
