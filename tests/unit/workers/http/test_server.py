import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from millrace.relay.contract.effects import Reply
from millrace.relay.contract.ids import RequestId, Slot
from millrace.relay.contract.inputs import (
    Deleted,
    Input,
    MoveAsked,
    Offered,
    Patched,
    RoomDeleted,
    RoomsAsked,
    RoomsListed,
    SessionAsked,
)
from millrace.relay.contract.layout import SlotState, read_word, slot_offsets
from millrace.relay.contract.protocol import Protocol
from millrace.workers.http import server as http
from millrace.workers.http.admin import AdminRoutes
from millrace.workers.http.origins import Cors
from millrace.workers.http.page import Page
from millrace.workers.http.public import PublicRoutes
from millrace.workers.http.server import Deadlines, HttpServer, Routes
from millrace.workers.metrics.slots import SlotsView
from millrace.workers.pending import MakeRequest
from millrace.workers.slot_table import SlotTable
from tests.unit.arena_kit import Master
from tests.unit.control_kit import desk

SDP = {"Content-Type": "application/sdp"}
CREATED = Reply(RequestId(0), 201, (("Location", "/whip/hall/00.abc"), ("Link", "<a>"), ("Link", "<b>")), b"v=0")
FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}


@dataclass
class Control:
    """Answers everything with one reply and keeps what it was asked."""

    reply: Reply = CREATED
    asked: list[Input] = field(default_factory=list)
    hold: asyncio.Event | None = None
    broken: bool = False

    async def ask(self, make: MakeRequest) -> Reply:
        self.asked.append(make(RequestId(0)))
        if self.broken:
            raise RuntimeError("secret detail")
        if self.hold is not None:
            await self.hold.wait()
        return self.reply


@dataclass
class Site:
    """A running server and a client of it."""

    url: str
    port: int
    control: Control
    client: aiohttp.ClientSession

    async def raw(self, *parts: bytes, pause: float = 0.0) -> bytes:
        """What comes back for bytes sent as they are, until the server closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        for part in parts:
            writer.write(part)
            await asyncio.sleep(pause)
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        return answer


def listen() -> tuple[int, int]:
    listener = socket.create_server(("127.0.0.1", 0))
    port: int = listener.getsockname()[1]
    return listener.detach(), port


async def serve(routes: Routes, control: Control, deadlines: Deadlines, requests: int) -> AsyncIterator[Site]:
    server = HttpServer(routes, deadlines, requests, cors=routes.cors if isinstance(routes, PublicRoutes) else None)
    descriptor, port = listen()
    await server.start([descriptor])
    async with aiohttp.ClientSession() as client:
        yield Site(f"http://127.0.0.1:{port}", port, control, client)
    await server.stop(1)
    # Still open, as it was given; its copy is not.
    os.close(descriptor)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


@pytest.fixture
def page(tmp_path: Path) -> Page:
    (tmp_path / "index.html").write_text("<!doctype html><title>page</title>")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "app.js").write_text("1")
    (tmp_path / "secret.py").write_text("x")
    return Page(tmp_path)


def public(control: Control, page: Page, origins: tuple[str, ...] = ("*",), seconds: float = 5) -> PublicRoutes:
    return PublicRoutes(control.ask, page, Cors(origins, is_open=False), Deadlines(seconds), 1000)


@pytest.fixture
async def site(page: Page) -> AsyncIterator[Site]:
    control = Control()
    async for site in serve(public(control, page), control, Deadlines(5), 4):
        yield site


@pytest.fixture
async def impatient(page: Page) -> AsyncIterator[Site]:
    control = Control()
    async for site in serve(public(control, page, seconds=0.3), control, Deadlines(0.3), 4):
        yield site


@pytest.fixture
async def patient(page: Page) -> AsyncIterator[Site]:
    control = Control()
    async for site in serve(public(control, page, seconds=60), control, Deadlines(60), 4):
        yield site


async def test_an_offer_reaches_control_and_its_reply_the_client(site: Site) -> None:
    headers = SDP | {"Authorization": "bearer abc.def", "Origin": "https://else.example"}
    async with site.client.post(f"{site.url}/whip/r%2F%C3%A9", data="v=0\r\n", headers=headers) as answer:
        assert answer.status == 201
        assert await answer.read() == b"v=0"
        assert answer.headers["Location"] == "/whip/hall/00.abc"
        assert answer.headers.getall("Link") == ["<a>", "<b>"]
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "Location" in answer.headers["Access-Control-Expose-Headers"]
        assert answer.headers["Server"] == "Millrace"
    assert site.control.asked == [Offered(RequestId(0), Protocol.WHIP, "r/é", "abc.def", "v=0\r\n", None)]


async def test_a_viewer_may_name_the_participant_and_sends_no_token(site: Site) -> None:
    headers = {"Content-Type": "application/sdp; charset=utf-8", "Authorization": "Basic eA=="}
    async with site.client.post(f"{site.url}/whep/hall?participant=ann", data="v=0", headers=headers) as answer:
        assert answer.status == 201
    assert site.control.asked == [Offered(RequestId(0), Protocol.WHEP, "hall", None, "v=0", "ann")]


async def test_patch_and_delete_name_the_session(site: Site) -> None:
    url = f"{site.url}/whip/hall/01.abc"
    async with site.client.patch(url, data="a=x", headers=FRAGMENT | {"If-Match": '"t"'}) as answer:
        assert answer.status == 201
    async with site.client.delete(url, headers={"Authorization": "Bearer t"}) as answer:
        assert answer.status == 201
    assert site.control.asked == [
        Patched(RequestId(0), "01.abc", None, '"t"', "a=x"),
        Deleted(RequestId(0), "01.abc", "t"),
    ]


async def test_bytes_that_are_no_text_reach_control_as_text(site: Site) -> None:
    head = (
        b"PATCH /whip/hall/01.abc HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: "
        + FRAGMENT["Content-Type"].encode()
    )
    fields = b'\r\nIf-Match: "\xff"\r\nAuthorization: Bearer a\xe9b\r\nContent-Length: 1\r\n\r\nx'
    await site.raw(head + fields)
    assert site.control.asked == [Patched(RequestId(0), "01.abc", "a?b", '"?"', "x")]


async def test_connections_held_open_keep_nobody_out(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_CONNECTIONS", 3)
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


async def test_options_say_what_is_accepted(site: Site) -> None:
    preflight = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    async with site.client.options(f"{site.url}/whip/hall", headers=preflight) as answer:
        assert answer.status == 204
        assert answer.headers["Accept-Post"] == "application/sdp"
        assert answer.headers["Access-Control-Allow-Methods"] == "POST, OPTIONS"
        assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
        assert "If-Match" in answer.headers["Access-Control-Allow-Headers"]
    async with site.client.options(f"{site.url}/whep/hall/00.x") as answer:
        assert answer.headers["Accept-Patch"] == "application/trickle-ice-sdpfrag"
        assert answer.headers["Allow"] == "PATCH, DELETE, OPTIONS"
        assert "Access-Control-Allow-Methods" not in answer.headers


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "PROPFIND"])
async def test_other_methods_get_405_with_allow(site: Site, method: str) -> None:
    async with site.client.request(method, f"{site.url}/whip/hall") as answer:
        assert answer.status == 405
        assert answer.headers["Allow"] == "POST, OPTIONS"
    if method not in ("DELETE", "PATCH"):
        async with site.client.request(method, f"{site.url}/whip/hall/00.x") as answer:
            assert answer.status == 405
            assert answer.headers["Allow"] == "PATCH, DELETE, OPTIONS"
    assert site.control.asked == []


async def test_only_listed_origins_may_read_the_answers(page: Page) -> None:
    control = Control()
    routes = public(control, page, ("https://good.example",))
    async for site in serve(routes, control, Deadlines(5), 4):
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

    async for site in serve(routes, control, Deadlines(0.3), 1):
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


async def test_headers_too_large_are_refused(site: Site) -> None:
    answer = await site.raw(b"GET / HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 100_000 + b"\r\n\r\n")
    assert answer.startswith((b"HTTP/1.0 400 ", b"HTTP/1.1 400 "))


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


async def test_bodies_that_do_not_come_keep_nobody_out_and_the_oldest_makes_room(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "BODY_SECONDS", 0.05)
    site.control.hold = asyncio.Event()
    complete = asyncio.create_task(site.client.post(f"{site.url}/whip/hall", data="v=0", headers=SDP))
    async with asyncio.timeout(5):
        while not site.control.asked:
            await asyncio.sleep(0.002)
    # Three have the places that are left; each that comes after them takes the oldest's.
    held = [await awaited_body(site) for _ in range(5)]
    for reader, writer in held[:2]:
        with suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 2) == b""
        writer.close()
    site.control.hold.set()
    assert (await complete).status == 201
    for streams in held[2:]:
        await finish(streams)


async def test_a_body_that_is_on_its_way_is_not_cut_for_a_newcomer(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BODY_SECONDS", 60.0)
    held = [await awaited_body(site) for _ in range(4)]
    assert await await_body(site) is None
    for streams in held:
        await finish(streams)


async def test_a_request_that_reads_no_body_is_not_cut_for_a_newcomer(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "BODY_SECONDS", 0.0)
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


async def test_a_server_that_lets_go_answers_what_comes_on_kept_alive_connections_and_closes_them(page: Page) -> None:
    control = Control(hold=asyncio.Event())
    server = HttpServer(public(control, page), Deadlines(5))
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
        letting_go = asyncio.create_task(server.let_go(5))
        await asyncio.sleep(0)
        writer.write(REQUEST)
        last = await reader.read()
        assert b"200 OK" in last
        assert b"Connection: close" in last
        # Nothing came on it: it is cut.
        assert await idle[0].read() == b""
        assert not letting_go.done()
        control.hold.set()
        assert (await slow).status == 201
    await letting_go
    # The listener itself goes on, and what knocks waits for the successor.
    waiting = await asyncio.open_connection("127.0.0.1", port)
    waiting[1].write(REQUEST)
    successor = HttpServer(public(control, page), Deadlines(5))
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


async def test_the_page_is_served_with_a_strict_policy_and_from_the_browsers_cache(site: Site) -> None:
    async with site.client.get(f"{site.url}/") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        etag = answer.headers["ETag"]
    async with site.client.get(f"{site.url}/", headers={"If-None-Match": etag}) as answer:
        assert answer.status == 304
    async with site.client.get(f"{site.url}/parts/app.js") as answer:
        assert answer.headers["Content-Type"].startswith("text/javascript")
    async with site.client.head(f"{site.url}/index.html") as answer:
        assert answer.status == 200
        assert int(answer.headers["Content-Length"]) > 0
    async with site.client.post(f"{site.url}/") as answer:
        assert answer.status == 405


@pytest.mark.parametrize(
    "path",
    [
        "/secret.py",
        "/../secret.py",
        "/%2e%2e/secret.py",
        "/parts",
        "/whip",
        "/whip/",
        "/whip/a/b/c",
        "/x",
        "/metrics",
    ],
)
async def test_nothing_else_is_there(site: Site, path: str) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    answer = await site.raw(request)
    assert answer.startswith(b"HTTP/1.1 404 ")


async def test_rooms_are_listed_for_the_bearer_of_a_token(site: Site) -> None:
    for headers, token in (({}, None), ({"Authorization": "Bearer abc"}, "abc")):
        async with site.client.get(f"{site.url}/rooms", headers=headers) as answer:
            assert answer.status == 201
        assert site.control.asked.pop() == RoomsListed(RequestId(0), token)


@pytest.fixture
def master() -> Iterator[Master]:
    """Workers live in the first two slots; the third never had one."""
    master = Master()
    for slot in (0, 1):
        master.write(slot, 1, SlotState.RUNNING)
    master.write(2, 0, SlotState.EMPTY, wanted=False)
    yield master
    os.close(master.arena)


@pytest.fixture
def slots(master: Master) -> Iterator[SlotsView]:
    table = SlotTable(master.arena, 3, Slot(0))
    engine = {"packets_received": 5, "packets_forwarded": 50, "drops.in.no_key": 2, "drops.out.outbox_full": 1}
    engine |= {"kernel_drops.0": 4, "histogram.engine_late.100": 7, "histogram.engine_late.sum": 300}
    yield SlotsView(table, desk().control, lambda: [engine, {}, {}])
    table.close()


async def test_admin_routes_reach_control(slots: SlotsView) -> None:
    control = Control(Reply(RequestId(0), 200, (("Content-Type", "application/json"),), b"{}"))
    reasons: dict[bool, str | None] = {False: "slot 1 does not beat", True: "slot 2 is dead"}

    async def metrics() -> tuple[bytes, str]:
        return b"m 1\n", "text/plain"

    async for site in serve(AdminRoutes(control.ask, metrics, reasons.__getitem__, slots), control, Deadlines(5), 4):
        for method, path, asked in [
            ("GET", "/rooms", RoomsAsked(RequestId(0))),
            ("GET", "/rooms/a%20b", RoomsAsked(RequestId(0), "a b")),
            ("DELETE", "/rooms/hall", RoomDeleted(RequestId(0), "hall")),
            ("GET", "/sessions/00.x", SessionAsked(RequestId(0), "00.x")),
            ("DELETE", "/sessions/00.x", Deleted(RequestId(0), "00.x", None, by_admin=True)),
            ("POST", "/sessions/00.x/move?slot=1", MoveAsked(RequestId(0), "00.x", 1)),
        ]:
            async with site.client.request(method, site.url + path) as answer:
                assert answer.status == 200
            assert control.asked.pop() == asked
        async with site.client.get(f"{site.url}/readyz") as answer:
            assert answer.status == 503
            assert "slot 1" in (await answer.json(content_type=None))["detail"]
        reasons[False] = None
        async with site.client.get(f"{site.url}/readyz?all") as answer:
            assert answer.status == 503
            assert "slot 2" in (await answer.json(content_type=None))["detail"]
        for path, status in [("/readyz", 200), ("/healthz", 200), ("/metrics", 200), ("/nothing", 404)]:
            async with site.client.get(site.url + path) as answer:
                assert answer.status == status
        for path, status in [
            ("/sessions/00.x/move", 400),
            ("/sessions/00.x/move?slot=-1", 400),
            ("/slots/0/drain", 200),
            ("/slots/1/drain", 409),
            ("/slots/2/drain", 404),
            ("/slots/3/drain", 404),
            ("/slots/x/drain", 404),
        ]:
            async with site.client.post(site.url + path) as answer:
                assert answer.status == status, path
        row = {"lives": True, "sessions": 0, "publications": 0, "control_late_ms": 0}
        idle = {"packets_in": 0, "packets_out": 0, "drops": 0, "kernel_drops": 0, "engine_late_us": {}}
        busy = {
            "packets_in": 5,
            "packets_out": 50,
            "drops": 3,
            "kernel_drops": 4,
            "engine_late_us": {"100": 7, "sum": 300},
        }
        async with site.client.post(f"{site.url}/sessions/00.x/move?slot=first") as answer:
            assert "?slot=first" in (await answer.json(content_type=None))["detail"]
        async with site.client.get(f"{site.url}/slots") as answer:
            assert await answer.json() == [
                row | busy | {"slot": 0, "drained": True},
                row | idle | {"slot": 1, "drained": False},
            ]
        async with site.client.delete(f"{site.url}/slots/0/drain") as answer:
            assert await answer.json() == row | busy | {"slot": 0, "drained": False}
        async with site.client.post(f"{site.url}/rooms/hall") as answer:
            assert answer.status == 405
            assert "DELETE" in answer.headers["Allow"]


def test_a_slot_that_never_had_a_worker_cannot_be_closed(master: Master, slots: SlotsView) -> None:
    assert slots.close(2, is_closed=True) == "no-slot"
    assert read_word(master.map, slot_offsets(2).closed) == 0
