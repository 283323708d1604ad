"""The hook's client against real servers: deadlines, bounds, redirects, connections that are used again."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import unused_port

from millrace.relay.config.model import AuthConfig
from millrace.relay.contract.access import Action, HookOutcome, HookQuestion, HookReplied
from millrace.workers.hook import MAX_ANSWER_BYTES, HookClient

QUESTION = HookQuestion(Action.WATCH, "hall", "opaque", "192.0.2.1", "ann")
Handle = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def asking(handle: Handle, timeout_ms: int = 3_000, secret: str = "") -> AsyncIterator[HookClient]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    # A request that is held must not hold the test's end.
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    _, port = runner.addresses[0]
    client = HookClient(AuthConfig(hook=f"http://127.0.0.1:{port}/ask", hook_timeout_ms=timeout_ms, hook_secret=secret))
    try:
        yield client
    finally:
        await client.stop()
        await runner.cleanup()


async def test_the_question_is_posted_as_json_with_the_secret() -> None:
    seen: list[tuple[str, str, str | None, object]] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append((request.method, request.path, request.headers.get("Authorization"), await request.json()))
        return web.json_response({"identity": "bob"})

    async with asking(handle, secret="hush") as client:
        answer = await client.ask(QUESTION)
    assert answer == HookReplied(200, b'{"identity": "bob"}')
    expected = {
        "action": "watch",
        "room": "hall",
        "token": "opaque",
        "identity": None,
        "participant": "ann",
        "address": "192.0.2.1",
    }
    assert seen == [("POST", "/ask", "Bearer hush", expected)]


async def test_a_refusal_comes_back_with_its_body() -> None:
    async def handle(_: web.Request) -> web.Response:
        return web.json_response({"reason": "banned"}, status=403)

    async with asking(handle) as client:
        answer = await client.ask(QUESTION)
    assert isinstance(answer, HookReplied)
    assert (answer.status, json.loads(answer.body)) == (403, {"reason": "banned"})


async def test_connections_are_used_again() -> None:
    ports = set()

    async def handle(request: web.Request) -> web.Response:
        assert request.transport is not None
        ports.add(request.transport.get_extra_info("peername"))
        return web.json_response({})

    async with asking(handle) as client:
        for _ in range(5):
            assert await client.ask(QUESTION) == HookReplied(200, b"{}")
    assert len(ports) == 1


async def test_a_hook_that_is_slow_is_given_up_at_its_deadline(caplog: pytest.LogCaptureFixture) -> None:
    held = asyncio.Event()

    async def handle(_: web.Request) -> web.Response:
        await held.wait()
        return web.json_response({})

    async with asking(handle, timeout_ms=50) as client:
        for _ in range(2):
            assert await client.ask(QUESTION) is HookOutcome.TIMEOUT
        held.set()
        assert await client.ask(QUESTION) in (HookReplied(200, b"{}"), HookOutcome.TIMEOUT)
    told = [record.message for record in caplog.records if "does not answer" in record.message]
    assert len(told) == 1, "one line until it answers again"


async def test_a_body_that_trickles_is_given_up_at_the_same_deadline() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"{")
        await asyncio.Event().wait()
        return response

    async with asking(handle, timeout_ms=100) as client:
        assert await client.ask(QUESTION) is HookOutcome.TIMEOUT


async def test_a_hook_that_is_not_there_is_unreachable_at_once(caplog: pytest.LogCaptureFixture) -> None:
    client = HookClient(AuthConfig(hook=f"http://127.0.0.1:{unused_port()}/", hook_timeout_ms=3_000))
    assert await client.ask(QUESTION) is HookOutcome.UNREACHABLE
    await client.stop()
    assert "opaque" not in caplog.text


async def test_a_redirect_is_not_followed() -> None:
    seen = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(request.path)
        raise web.HTTPTemporaryRedirect("/elsewhere")

    async with asking(handle) as client:
        answer = await client.ask(QUESTION)
    assert isinstance(answer, HookReplied)
    assert (answer.status, seen) == (307, ["/ask"])


@pytest.mark.parametrize(("size", "is_read"), [(MAX_ANSWER_BYTES, True), (MAX_ANSWER_BYTES + 1, False)])
async def test_an_answer_is_read_up_to_a_bound(size: int, is_read: bool) -> None:
    async def handle(_: web.Request) -> web.Response:
        return web.Response(body=b" " * size)

    async with asking(handle) as client:
        answer = await client.ask(QUESTION)
    assert isinstance(answer, HookReplied) is is_read
    assert is_read or answer is HookOutcome.UNREADABLE


async def serve_raw(answers: list[bytes]) -> tuple[asyncio.Server, list[int]]:
    """A server that gives the next answer to each request and says nothing of what it will do: b"" closes."""
    requests: list[int] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))
            requests.append(writer.get_extra_info("peername")[1])
            answer = answers.pop(0) if answers else b""
            if not answer:
                writer.close()
                return
            writer.write(answer)

    return await asyncio.start_server(handle, "127.0.0.1", 0), requests


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


async def test_an_idle_connection_that_the_hook_closes_costs_no_answer() -> None:
    server, requests = await serve_raw([OK, b"", OK])
    client = HookClient(AuthConfig(hook=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"))
    for _ in range(2):
        assert await client.ask(QUESTION) == HookReplied(200, b"{}")
    await client.stop()
    server.close()
    assert len(requests) == 3


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [(b"SSH-2.0-nothing\r\n\r\n", HookOutcome.UNREADABLE), (b"", HookOutcome.UNREACHABLE)],
)
async def test_what_is_no_http_is_no_answer(answer: bytes, outcome: HookOutcome) -> None:
    server, _ = await serve_raw([answer])
    client = HookClient(AuthConfig(hook=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"))
    assert await client.ask(QUESTION) is outcome
    await client.stop()
    server.close()
