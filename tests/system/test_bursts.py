"""Many connections at once: a worker holds no more of them than its bound, those in a TLS handshake among them, and who
asks is answered. Read next: `workers/http/accepting.py`.
"""

import asyncio
import os
import socket
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from millrace.workers.http.accepting import MAX_CONNECTIONS
from tests.system.relay_process import Relay
from tests.system.test_https import CLIENT, serving
from tests.system.worker_pids import pid_by_slot

BURST = 3_000
OTHERS = 64
"""Descriptors that a worker may open beside connections meanwhile."""
REQUEST = b"GET /rooms HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


class Watched(threading.Thread):
    """Looks all the time how many descriptors a process has."""

    def __init__(self, pid: int) -> None:
        super().__init__()
        self._folder = f"/proc/{pid}/fd"
        self._is_over = threading.Event()
        self.most = self.now()

    def now(self) -> int:
        return len(os.listdir(self._folder))

    def run(self) -> None:
        while not self._is_over.wait(0.001) and Path(self._folder).exists():
            self.most = max(self.most, self.now())

    def end(self) -> int:
        self._is_over.set()
        self.join()
        return self.most


def burst(held: ExitStack, port: int) -> None:
    """Connections of one address that never say a word, as fast as they are taken."""
    for _ in range(BURST):
        each = held.enter_context(socket.socket())
        each.settimeout(60)
        each.bind(("127.0.0.9", 0))
        each.connect(("127.0.0.1", port))


async def ask(port: int, is_https: bool) -> bytes:
    """Returns the status line."""
    tls = CLIENT if is_https else None
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    writer.write(REQUEST)
    answer = await reader.read()
    writer.close()
    return answer.partition(b"\r\n")[0]


@pytest.mark.parametrize("is_https", [False, True], ids=["http", "https"])
async def test_a_burst_stays_within_the_bound_and_keeps_nobody_out(tmp_path: Path, is_https: bool) -> None:
    settings = {"workers.count": "1", "limits.request_seconds": "600"}
    running = serving(tmp_path, settings) if is_https else Relay(settings=settings)
    async with running as relay:
        pid = pid_by_slot(relay)[0]
        watched = Watched(pid)
        before = watched.most
        watched.start()
        with ExitStack() as held:
            await asyncio.to_thread(burst, held, relay.http_port)
            for _ in range(20):
                async with asyncio.timeout(30):
                    assert await ask(relay.http_port, is_https) == b"HTTP/1.1 200 OK"
        most = watched.end()
        print(f"{most - before} descriptors more at the most")
        assert MAX_CONNECTIONS - OTHERS <= most - before <= MAX_CONNECTIONS + OTHERS
        # All that is left is what there was.
        async with asyncio.timeout(60):
            while watched.now() > before + OTHERS:
                await asyncio.sleep(0.01)
