"""Bounds, deadlines and errors of the HTTP server."""

import asyncio
import json
import os
import socket
from contextlib import suppress

import aiohttp
import pytest

from millrace.relay.contract.ids import RequestId
from millrace.relay.contract.inputs import Patched
from millrace.workers.http import accepting
from millrace.workers.http.page import Page
from millrace.workers.http.server import Deadlines, HttpServer
from tests.unit.workers.http.http_kit import FRAGMENT, SDP, Control, Site, listen, public, serve


async def test_bytes_that_are_no_text_reach_control_as_text(site: Site) -> None:
    head = (
        b"PATCH /whip/hall/01.abc HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: "
        + FRAGMENT["Content-Type"].encode()
    )
    fields = b'\r\nIf-Match: "\xff"\r\nAuthorization: Bearer a\xe9b\r\nContent-Length: 1\r\n\r\nx'
    await site.raw(head + fields)
    assert site.control.asked == [Patched(RequestId(0), "01.abc", "a?b", '"?"', "x", "127.0.0.1")]


async def test_connections_held_open_keep_nobody_out(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "MAX_CONNECTIONS", 3)
    site.control.hold = asyncio.Event()
    under_way = asyncio.create_task(
        site.raw(b"DELETE /whip/hall/00.x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    )
    while not site.control.asked:
        await asyncio.sleep(0)
    held = [await asyncio.open_connection("127.0.0.1", site.port) for _ in range(2)]
    async with site.client.options(f"{site.url}/whip/hall") as answer:
        assert answer.status == 204
    oldest, _ = held[0]
    with suppress(ConnectionResetError):
        assert await asyncio.wait_for(oldest.read(), 5) == b""
    for _, writer in held:
        writer.close()
    site.control.hold.set()
    assert (await under_way).startswith(b"HTTP/1.1 201 ")


async def test_only_listed_origins_may_read_the_answers(page: Page) -> None:
    control = Control()
    routes = public(control, page, ("https://good.example",))
    async for site in serve(routes, control, Deadlines(5, 60), 4):
        url = f"{site.url}/whip/hall"
        async with site.client.options(url, headers={"Origin": "https://good.example"}) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == "https://good.example"
            assert answer.headers["Vary"] == "Origin"
        async with site.client.options(url, headers={"Origin": "https://bad.example"}) as answer:
            assert not [name for name in answer.headers if name.startswith("Access-Control")]
        async with site.client.post(url, data="x", headers=SDP | {"Origin": "https://bad.example"}) as answer:
            assert "Access-Control-Allow-Origin" not in answer.headers


async def test_every_refusal_may_be_read_by_a_page_of_a_listed_origin(page: Page) -> None:
    control = Control()
    origin = {"Origin": "https://good.example"}
    routes = public(control, page, ("https://good.example",), seconds=0.3)

    async def refused(site: Site, status: int, headers: dict[str, str], body: bytes) -> None:
        async with site.client.post(f"{site.url}/whip/hall", data=body, headers=headers | origin) as answer:
            assert answer.status == status
            assert answer.headers["Access-Control-Allow-Origin"] == "https://good.example"
            assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]

    async for site in serve(routes, control, Deadlines(0.3, 60), 1):
        await refused(site, 415, {"Content-Type": "text/plain"}, b"v=0")
        await refused(site, 413, SDP, b"x" * 1001)
        await refused(site, 400, SDP, b"\xff\xfe")
        head = b"POST /whip/h HTTP/1.1\r\nHost: x\r\nOrigin: https://good.example\r\nContent-Length: 9\r\n"
        slow = await site.raw(head + b"Content-Type: application/sdp\r\n\r\n")
        assert slow.startswith(b"HTTP/1.1 408 ")
        assert b"Access-Control-Allow-Origin: https://good.example\r\n" in slow
        control.hold = asyncio.Event()
        under_way = asyncio.create_task(site.client.post(f"{site.url}/whip/hall", data="v=0", headers=SDP))
        async with asyncio.timeout(5):
            while not control.asked:
                await asyncio.sleep(0.002)
        await refused(site, 503, SDP, b"v=0")
        control.hold.set()
        assert (await under_way).status == 201
        control.broken = True
        await refused(site, 500, SDP, b"v=0")


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Content-Type": "text/plain"}, b"v=0", 415),
        ({}, b"v=0", 415),
        (SDP | {"Content-Encoding": "gzip"}, b"v=0", 415),
        (SDP, b"\xff\xfe", 400),
        (SDP, b"x" * 1001, 413),
    ],
)
async def test_bad_bodies_are_refused_with_a_problem(
    site: Site, headers: dict[str, str], body: bytes, status: int
) -> None:
    async with site.client.post(f"{site.url}/whip/hall", data=body, headers=headers) as answer:
        assert answer.status == status
        assert answer.content_type == "application/problem+json"
        content = json.loads(await answer.read())
    assert content["status"] == status
    assert content["detail"]
    assert site.control.asked == []


async def test_a_body_announced_too_long_is_refused_before_it_is_sent(patient: Site) -> None:
    head = b"POST /whip/h HTTP/1.1\r\nHost: x\r\nContent-Type: application/sdp\r\nContent-Length: 9999999\r\n\r\n"
    loop = asyncio.get_running_loop()
    started = loop.time()
    answer = await patient.raw(head)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert loop.time() - started < 8, "some seconds, not the minute that a body may take"


async def test_a_stream_is_refused_where_it_passes_the_limit(site: Site) -> None:
    head = b"POST /whip/h HTTP/1.1\r\nHost: x\r\nContent-Type: application/sdp\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"190\r\n" + b"x" * 400 + b"\r\n"
    answer = await site.raw(head, chunk, chunk, chunk)
    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_a_client_that_expects_100_gets_it_only_when_its_body_is_wanted(site: Site) -> None:
    head = b"POST /whip/h HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: 3\r\nExpect: 100-continue\r\n"
    end = b"Connection: close\r\n\r\n"
    answer = await site.raw(head % b"application/sdp" + end, b"v=0", pause=0.05)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 ")
    answer = await site.raw(head % b"text/plain" + end, pause=0.05)
    assert answer.startswith(b"HTTP/1.1 415 ")


async def test_headers_that_never_end_are_cut(impatient: Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", impatient.port)
    writer.write(b"POST /whip/h HTTP/1.1\r\n")
    reading = asyncio.create_task(reader.read())
    async with asyncio.timeout(10):
        while not reading.done():
            writer.write(b"X-A: 1\r\n")
            await asyncio.sleep(0.1)
    # What was under way when it was closed makes a reset of it.
    with suppress(ConnectionResetError):
        assert await reading == b""
    writer.close()


async def test_a_silent_connection_is_cut(impatient: Site) -> None:
    assert await impatient.raw() == b""


async def test_a_body_that_never_ends_is_cut_with_408(impatient: Site) -> None:
    head = b"POST /whip/h HTTP/1.1\r\nHost: x\r\nContent-Type: application/sdp\r\nContent-Length: 500\r\n\r\n"
    answer = await impatient.raw(head, b"v=0")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert impatient.control.asked == []


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"BREW /whip/hall HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET nonsense HTTP/9\r\n\r\n",
        b"POST /whip/hall HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET /\r\nHost: x\r\n\r\n",
        b"GET / HTTP/0.9\r\nHost: x\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
        b"GET / HTTP\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    ],
)
async def test_what_is_not_http_gets_400_and_no_detail_of_ours_and_no_line_in_the_log(
    site: Site, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await site.raw(sent)
    assert b" 400 " in answer
    assert b"urn:millrace:problem:not-http" in answer
    for detail in (b"Traceback", b"aiohttp", b"Python"):
        assert detail not in answer
    assert not caplog.records


async def test_two_origins_are_refused(site: Site) -> None:
    request = b"GET / HTTP/1.1\r\nHost: x\r\nOrigin: http://localhost\r\nOrigin: http://evil.example\r\n"
    assert (await site.raw(request + b"Connection: close\r\n\r\n")).startswith(b"HTTP/1.1 400 ")


async def test_a_client_that_leaves_in_mid_body_leaves_no_line_in_the_log(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    before = asyncio.all_tasks()
    _, writer = await awaited_body(site)
    serving = asyncio.all_tasks() - before
    assert serving
    writer.close()
    await asyncio.wait_for(asyncio.wait(serving), 5)
    assert not caplog.records


async def test_too_many_requests_at_once_get_503_and_later_ones_go_on(site: Site) -> None:
    site.control.hold = asyncio.Event()

    async def post() -> tuple[int, str | None]:
        async with site.client.post(f"{site.url}/whip/hall", data="v=0", headers=SDP) as answer:
            return answer.status, answer.headers.get("Retry-After")

    posts = [asyncio.create_task(post()) for _ in range(10)]
    while sum(task.done() for task in posts) < 6:
        await asyncio.sleep(0.01)
    site.control.hold.set()
    answers = await asyncio.gather(*posts)
    assert sorted(status for status, _ in answers) == [201] * 4 + [503] * 6
    assert {after for status, after in answers if status == 503} == {"5"}
    assert (await post())[0] == 201


AWAITED = (
    b"POST /whip/h HTTP/1.1\r\nHost: x\r\nContent-Type: application/sdp\r\nContent-Length: 900\r\n"
    b"Expect: 100-continue\r\n\r\n"
)
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def await_body(site: Site) -> Streams | None:
    """A request whose body the server waits for; none when it was refused."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(AWAITED)
    status = await reader.readuntil(b"\r\n\r\n")
    if status == b"HTTP/1.1 100 Continue\r\n\r\n":
        return reader, writer
    assert status.startswith(b"HTTP/1.1 503 ")
    writer.close()
    return None


async def awaited_body(site: Site) -> Streams:
    """The same, as soon as there is room for it."""
    async with asyncio.timeout(5):
        while (streams := await await_body(site)) is None:
            await asyncio.sleep(0.002)
    return streams


async def finish(streams: Streams) -> None:
    reader, writer = streams
    writer.write(b"x" * 900)
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 201 ")
    writer.close()


async def test_bodies_that_do_not_come_take_no_requests_place(site: Site) -> None:
    held = [await awaited_body(site) for _ in range(12)]
    async with site.client.post(f"{site.url}/whip/hall", data="v=0", headers=SDP) as answer:
        assert answer.status == 201
    for streams in held:
        await finish(streams)


async def test_bodies_that_do_not_come_make_room_for_connections(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "MAX_CONNECTIONS", 3)
    held = [await awaited_body(site) for _ in range(3)]
    async with site.client.options(f"{site.url}/whip/hall") as answer:
        assert answer.status == 204
    (oldest, _), *others = held
    with suppress(ConnectionResetError):
        assert await asyncio.wait_for(oldest.read(), 5) == b""
    for streams in others:
        await finish(streams)


async def test_who_holds_most_connections_makes_room(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "MAX_CONNECTIONS", 4)
    # This machine answers under every address of its loopback network.
    quiet = await asyncio.open_connection("127.0.0.1", site.port, local_addr=("127.0.0.2", 0))
    greedy = [await asyncio.open_connection("127.0.0.1", site.port, local_addr=("127.0.0.3", 0)) for _ in range(12)]
    quiet[1].write(REQUEST)
    assert (await asyncio.wait_for(quiet[0].readuntil(b"\r\n"), 5)).startswith(b"HTTP/1.1 ")
    for _, writer in (quiet, *greedy):
        writer.close()


async def test_requests_whose_handlers_run_are_not_cut_for_a_newcomer(site: Site) -> None:
    site.control.hold = asyncio.Event()
    head = b"DELETE /whip/hall/00.x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 900\r\n\r\n"
    deleting = [asyncio.create_task(site.raw(head)) for _ in range(4)]
    async with asyncio.timeout(5):
        while len(site.control.asked) < 4:
            await asyncio.sleep(0.002)
    assert await await_body(site) is None
    site.control.hold.set()
    for answer in await asyncio.gather(*deleting):
        assert answer.startswith(b"HTTP/1.1 201 ")


REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_a_server_that_releases_its_listeners_answers_on_kept_alive_connections_and_closes_them(
    page: Page,
) -> None:
    control = Control(hold=asyncio.Event())
    server = HttpServer(public(control, page), Deadlines(5, 60))
    descriptor, port = listen()
    # As the master's: it stays open whatever a worker does.
    kept = socket.socket(fileno=os.dup(descriptor))
    await server.start([descriptor])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(REQUEST)
    first = await reader.readuntil(b"</title>")
    assert b"Connection: close" not in first
    idle = await asyncio.open_connection("127.0.0.1", port)
    async with aiohttp.ClientSession() as client:
        slow = asyncio.create_task(client.post(f"http://127.0.0.1:{port}/whip/hall", data="v=0\r\n", headers=SDP))
        async with asyncio.timeout(5):
            while not control.asked:
                await asyncio.sleep(0.002)
        releasing = asyncio.create_task(server.release(5))
        await asyncio.sleep(0)
        writer.write(REQUEST)
        last = await reader.read()
        assert b"200 OK" in last
        assert b"Connection: close" in last
        # Nothing came on it: it is cut.
        assert await idle[0].read() == b""
        assert not releasing.done()
        control.hold.set()
        assert (await slow).status == 201
    await releasing
    # The listener itself goes on, and what knocks waits for the successor.
    waiting = await asyncio.open_connection("127.0.0.1", port)
    waiting[1].write(REQUEST)
    successor = HttpServer(public(control, page), Deadlines(5, 60))
    await successor.start([kept.detach()])
    assert b"200 OK" in await waiting[0].readuntil(b"</title>")
    for _, each in (waiting, idle, (reader, writer)):
        each.close()
    await successor.stop(1)


async def test_a_bug_is_a_500_without_its_detail(site: Site) -> None:
    site.control.broken = True
    async with site.client.post(f"{site.url}/whip/hall", data="v=0", headers=SDP) as answer:
        assert answer.status == 500
        assert b"secret" not in await answer.read()
