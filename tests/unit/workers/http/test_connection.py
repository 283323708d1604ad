"""What may stand around a body, and how long connections last."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from millrace.relay.contract.ids import RequestId
from millrace.relay.contract.inputs import Deleted, Offered
from millrace.workers.http import accepting
from millrace.workers.http.connection import MAX_FIELDS, MAX_HEAD_BYTES
from millrace.workers.http.page import Page
from millrace.workers.http.server import Deadlines
from tests.unit.workers.http.http_kit import Control, Site, public, serve

GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
CLOSE = b"Connection: close\r\n\r\n"


@pytest.fixture
async def hasty(page: Page) -> AsyncIterator[Site]:
    """Waits little for a request, and long for the next one."""
    control = Control()
    async for site in serve(public(control, page, seconds=0.3), control, Deadlines(0.3, 60), 4):
        yield site


async def fetch(site: Site) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that is kept after its first request."""
    streams = await asyncio.open_connection("127.0.0.1", site.port)
    await fetch_again(*streams)
    return streams


async def fetch_again(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(GET + b"\r\n")
    assert (await reader.readuntil(b"</title>")).startswith(b"HTTP/1.1 200 ")


async def until_closed(reader: asyncio.StreamReader) -> None:
    # What was under way when it was closed makes a reset of it.
    with suppress(ConnectionResetError):
        assert await asyncio.wait_for(reader.read(), 10) == b""


FITTING = {
    "one cookie": b"Cookie: a=" + b"x" * 16_384 + b"\r\n",
    "the longest": b"X: " + b"x" * (MAX_HEAD_BYTES - len(GET) - len(CLOSE) - 5) + b"\r\n",
    "a token and cookies": b"Authorization: Bearer " + b"x" * 8192 + b"\r\n" + b"Cookie: " + b"y" * 16_000 + b"\r\n",
    "150 fields": b"".join(b"X-%d: 1\r\n" % number for number in range(150)),
}


@pytest.mark.parametrize("name", FITTING)
async def test_what_proxies_pass_on_is_taken(site: Site, name: str) -> None:
    assert (await site.raw(GET + FITTING[name] + CLOSE)).startswith(b"HTTP/1.1 200 ")


async def test_a_long_address_is_taken(site: Site) -> None:
    request = b"GET /?jwt=" + b"x" * 16_384 + b" HTTP/1.1\r\nHost: x\r\n" + CLOSE
    assert (await site.raw(request)).startswith(b"HTTP/1.1 200 ")


async def test_a_head_may_come_in_pieces(site: Site) -> None:
    head = GET + FITTING["the longest"] + CLOSE
    pieces = [head[at : at + 1000] for at in range(0, len(head), 1000)]
    assert (await site.raw(*pieces, pause=0.001)).startswith(b"HTTP/1.1 200 ")


BEYOND = {
    "one cookie": (GET + b"Cookie: a=" + b"x" * MAX_HEAD_BYTES + b"\r\n" + CLOSE, 431),
    "far too long": (GET + b"Cookie: a=" + b"x" * 1_000_000 + b"\r\n" + CLOSE, 431),
    "one byte more": (GET + FITTING["the longest"].replace(b"X: ", b"X: x") + CLOSE, 431),
    "a name": (GET + b"x" * MAX_HEAD_BYTES + b": 1\r\n" + CLOSE, 431),
    "the sum": (GET + b"".join(b"X-%d: %s\r\n" % (n, b"x" * 2000) for n in range(20)) + CLOSE, 431),
    "many fields": (GET + b"".join(b"X-%d: 1\r\n" % number for number in range(MAX_FIELDS + 1)) + CLOSE, 431),
    "without an end": (GET + b"X-1: 1\r\n" * 10_000, 431),
    "the address": (b"GET /?jwt=" + b"x" * MAX_HEAD_BYTES + b" HTTP/1.1\r\nHost: x\r\n" + CLOSE, 414),
    "behind another request": (GET + b"\r\n" + GET + b"X-1: 1\r\n" * 10_000, 431),
}


@pytest.mark.parametrize("name", BEYOND)
async def test_a_longer_head_is_refused_with_what_is_too_long(site: Site, name: str) -> None:
    request, status = BEYOND[name]
    answer = await site.raw(request)
    assert b" %d " % status in answer.rpartition(b"HTTP/")[2].partition(b"\r\n")[0]
    assert b"problem+json" in answer
    assert b" may have " in answer


async def test_trailers_without_end_are_cut(site: Site) -> None:
    site.control.hold = asyncio.Event()
    head = b"DELETE /whip/hall/00.x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(head)
    reading = asyncio.create_task(until_closed(reader))
    async with asyncio.timeout(10):
        while not reading.done():
            with suppress(ConnectionError):
                writer.write(b"X: " + b"x" * 1000 + b"\r\n")
                await writer.drain()
            await asyncio.sleep(0)
    await reading
    site.control.hold.set()


async def test_a_long_body_that_nobody_reads_is_no_head(site: Site) -> None:
    size = 1_000_000
    head = b"DELETE /whip/hall/00.x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
    assert (await site.raw(head % size + b"x" * size)).startswith(b"HTTP/1.1 201 ")


POST = b"POST /whip/hall HTTP/1.1\r\nHost: x\r\nContent-Type: application/sdp\r\nContent-Length: 3\r\n\r\nv=0"


async def until_asked(site: Site, number: int) -> None:
    async with asyncio.timeout(10):
        while len(site.control.asked) < number:
            await asyncio.sleep(0.002)


@pytest.mark.parametrize("requests", [1, 2])
async def test_a_client_that_has_ended_its_side_gets_its_answers_and_then_the_end(site: Site, requests: int) -> None:
    site.control.hold = asyncio.Event()
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(POST * requests)
    writer.write_eof()
    await until_asked(site, 1)
    site.control.hold.set()
    answer = await asyncio.wait_for(reader.read(), 10)
    assert answer.count(b"HTTP/1.1 201 ") == requests
    assert [type(asked) for asked in site.control.asked] == [Offered] * requests
    writer.close()


async def test_a_client_that_ends_its_side_without_a_whole_request_is_let_go(site: Site) -> None:
    for sent in (b"", GET, POST[:-1]):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(sent)
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 3) == b""
        writer.close()
    assert site.control.asked == []


@pytest.mark.parametrize("resets", [False, True])
async def test_a_client_that_has_gone_when_its_session_is_answered_leaves_none(site: Site, resets: bool) -> None:
    site.control.hold = asyncio.Event()
    _, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(POST)
    await until_asked(site, 1)
    if resets:
        ours = writer.get_extra_info("socket")
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    # The server has to have seen it go: it sees what came before this.
    async with site.client.get(site.url) as answer:
        assert answer.status == 200
    site.control.hold.set()
    await until_asked(site, 2)
    assert site.control.asked[1] == Deleted(RequestId(0), "00.abc", None)


async def test_a_connection_may_idle_longer_than_a_request_may_take(hasty: Site) -> None:
    kept = await fetch(hasty)
    silent, writer = await asyncio.open_connection("127.0.0.1", hasty.port)
    # It came later and its time is over, so the other one has idled longer than that.
    await until_closed(silent)
    await fetch_again(*kept)
    for each in (writer, kept[1]):
        each.close()


async def test_a_connection_that_idles_too_long_is_closed(page: Page) -> None:
    control = Control()
    async for site in serve(public(control, page), control, Deadlines(60, 0.3), 4):
        reader, writer = await fetch(site)
        await until_closed(reader)
        writer.close()


async def test_a_second_head_has_to_come_in_time_like_the_first(hasty: Site) -> None:
    reader, writer = await fetch(hasty)
    reading = asyncio.create_task(until_closed(reader))
    async with asyncio.timeout(10):
        writer.write(GET)
        while not reading.done():
            writer.write(b"X-A: 1\r\n")
            await asyncio.sleep(0.05)
    await reading
    writer.close()


async def test_at_the_limit_whoever_has_idled_longest_makes_room(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "MAX_CONNECTIONS", 3)
    proxy = await fetch(site)
    forgotten = await fetch(site)
    await fetch_again(*proxy)
    silent = await asyncio.open_connection("127.0.0.1", site.port)
    newcomer = await fetch(site)
    await until_closed(forgotten[0])
    await fetch_again(*proxy)
    for _, writer in (proxy, forgotten, silent, newcomer):
        writer.close()
