"""Connections that come when there is no room. `tests/system/test_bursts.py` has many of them."""

import asyncio
import errno
import logging
import os

import pytest

from millrace.workers.http import accepting
from millrace.workers.http.accepting import BoundedServer, Listener
from tests.unit.workers.http.http_kit import Site, listen

HELD = b"DELETE /whip/hall/00.x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def test_where_all_are_busy_a_newcomer_waits_until_one_ends(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "MAX_CONNECTIONS", 2)
    site.control.hold = asyncio.Event()
    busy = [asyncio.create_task(site.raw(HELD)) for _ in range(2)]
    async with asyncio.timeout(10):
        while len(site.control.asked) < 2:
            await asyncio.sleep(0.002)
    newcomer = asyncio.create_task(site.raw(HELD))
    for _ in range(20):
        await asyncio.sleep(0.002)
    assert len(site.control.asked) == 2
    site.control.hold.set()
    for answer in await asyncio.gather(*busy, newcomer):
        assert answer.startswith(b"HTTP/1.1 201 ")


async def test_a_request_that_ends_lets_a_waiting_newcomer_in(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "MAX_CONNECTIONS", 1)
    site.control.hold = asyncio.Event()
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(HELD.replace(b"Connection: close\r\n", b""))
    async with asyncio.timeout(10):
        while not site.control.asked:
            await asyncio.sleep(0.002)
    newcomer = asyncio.create_task(site.raw(HELD))
    await asyncio.sleep(0.02)
    site.control.hold.set()
    # The first one's connection is idle then, and makes room.
    assert (await newcomer).startswith(b"HTTP/1.1 201 ")
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 201 ")
    writer.close()


async def test_a_system_without_descriptors_is_asked_again_later_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(accepting, "SHORTAGE_SECONDS", 0.001)
    answered: list[bool] = []
    server = BoundedServer(lambda request: asyncio.sleep(0, None))  # type: ignore[arg-type, return-value]

    class Exhausted:
        """A listening socket of such a system."""

        def __init__(self, descriptor: int) -> None:
            self._descriptor = descriptor

        def accept(self) -> None:
            answered.append(True)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        def fileno(self) -> int:
            return self._descriptor

        def close(self) -> None:
            os.close(self._descriptor)

    descriptor, port = listen()
    listener = Listener(Exhausted(descriptor), server)  # type: ignore[arg-type]
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    with caplog.at_level(logging.WARNING):
        async with asyncio.timeout(10):
            while len(answered) < 5:
                await asyncio.sleep(0.001)
    assert [record.getMessage() for record in caplog.records] == [
        "connections wait: the system has no room for another"
    ]
    listener.close()
    writer.close()
