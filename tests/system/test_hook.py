"""The operator's hook: one that grants, refuses, is slow, says garbage or is dead, and what each costs."""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socket import SOCK_STREAM
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from millrace.master.start.x509 import make_https_certificate
from tests.system.posts import OFFER
from tests.system.relay_process import Relay, free_port

SDP = {"Content-Type": "application/sdp"}
HOOK_MS = 400
SECRET = "hush"


@dataclass
class App:
    """The operator's server: what a token says is what it does."""

    asked: list[dict[str, Any]] = field(default_factory=list)
    secrets: set[str | None] = field(default_factory=set)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        question = await request.json()
        self.asked.append(question)
        self.secrets.add(request.headers.get("Authorization"))
        match question["token"]:
            case "grant" | None:
                return web.json_response({"identity": "bob", "rooms": ["hall"]})
            case "watch-only":
                return web.json_response({"can_publish": False, "reason": "viewers do not publish"})
            case "refuse":
                return web.json_response({"reason": "banned until Monday"}, status=403)
            case "slow":
                await asyncio.Event().wait()
            case "redirect":
                raise web.HTTPFound(f"http://{request.host}/elsewhere")
        return web.Response(text="garbage")


@asynccontextmanager
async def serving(app: App, port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[None]:
    site = web.Application()
    site.router.add_route("*", "/{path:.*}", app.handle)
    # Requests that are held must not hold the test's end.
    runner = web.AppRunner(site, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls).start()
    try:
        yield
    finally:
        await runner.cleanup()


@dataclass
class Answer:
    status: int
    reason: str
    detail: str
    headers: dict[str, str]
    seconds: float


async def post(relay: Relay, path: str, token: str | None, more: dict[str, str] | None = None) -> Answer:
    headers = SDP | (more or {}) | ({"Authorization": f"Bearer {token}"} if token else {})
    began = time.monotonic()
    # A connection of its own, so that any worker may be asked.
    async with aiohttp.ClientSession() as http, http.post(relay.url + path, data=OFFER, headers=headers) as answer:
        text = await answer.text()
        said = json.loads(text) if answer.status >= 400 else {}
        reason = said.get("type", "").rpartition(":")[2]
        return Answer(answer.status, reason, said.get("detail", ""), dict(answer.headers), time.monotonic() - began)


def hooked(port: int, scheme: str = "http") -> dict[str, str]:
    return {
        "auth.hook": f'"{scheme}://127.0.0.1:{port}/ask"',
        "auth.hook_secret": f'"{SECRET}"',
        "auth.hook_timeout_ms": str(HOOK_MS),
        "auth.public_rooms": '["lobby"]',
    }


async def test_a_hook_grants_refuses_or_fails_and_the_client_is_told_which() -> None:
    app, port = App(), free_port(SOCK_STREAM)
    async with serving(app, port), Relay(settings=hooked(port)) as relay:
        granted = await post(relay, "/whep/hall", "grant")
        assert granted.status == 201
        async with aiohttp.ClientSession() as http:
            async with http.get(f"{relay.url}/rooms", headers={"Authorization": "Bearer grant"}) as answer:
                assert answer.status == 200
            async with http.delete(relay.url + granted.headers["Location"]) as answer:
                assert answer.status == 200
        assert (await post(relay, "/whep/hall", "watch-only")).status == 201
        for token, status, reason, detail, comes_again in (
            ("refuse", 403, "hook-refused", "banned until Monday", False),
            ("slow", 504, "hook-timeout", "did not answer in time", True),
            ("garbage", 502, "hook-unreadable", "no answer that can be read", True),
            ("redirect", 502, "hook-unreadable", "no answer that can be read", True),
        ):
            told = await post(relay, "/whep/hall", token)
            assert (told.status, told.reason) == (status, reason)
            assert detail in told.detail
            assert ("Retry-After" in told.headers) is comes_again
        denied = await post(relay, "/whip/hall", "watch-only")
        assert (denied.status, denied.detail) == (403, "viewers do not publish")
        assert app.secrets == {f"Bearer {SECRET}"}
        assert {question["address"] for question in app.asked} == {"127.0.0.1"}
        assert {question["action"] for question in app.asked} == {"publish", "watch", "list"}
        before = len(app.asked)
        assert (await post(relay, "/whep/lobby", "garbage")).status == 201
        assert len(app.asked) == before, "a rule decides without the hook"
        counted = await outcomes(relay)
        assert counted.keys() == {"granted", "refused", "timeout", "unreachable", "unreadable"}
        assert counted["unreachable"] == 0
        for status, reason in ((403, "hook-refused"), (504, "hook-timeout"), (502, "hook-unreadable")):
            assert f"request refused protocol=whep room=hall status={status} reason={reason}" in relay.log()
        assert "garbage" not in relay.log()
        assert SECRET not in relay.log()


async def outcomes(relay: Relay) -> dict[str, float]:
    """How often the hook was asked, by how it ended. A worker tells its counters once a second."""
    found: dict[str, float] = {}
    async with asyncio.timeout(20), aiohttp.ClientSession() as http:
        while any(not found.get(outcome) for outcome in ("granted", "refused", "timeout", "unreadable")):
            found = {}
            async with http.get(f"{relay.admin}/metrics") as answer:
                for line in (await answer.text()).splitlines():
                    if line.startswith("millrace_hook_answers_total{"):
                        outcome = line.partition('outcome="')[2].partition('"')[0]
                        found[outcome] = found.get(outcome, 0) + float(line.rpartition(" ")[2])
    return found


async def test_a_dead_hook_is_said_at_once_and_one_that_comes_back_is_heard() -> None:
    app, port = App(), free_port(SOCK_STREAM)
    async with Relay(workers=1, settings=hooked(port)) as relay:
        dead = await post(relay, "/whep/hall", "grant")
        assert (dead.status, dead.reason) == (502, "hook-unreachable")
        assert "Retry-After" in dead.headers
        await relay.until_logged("the hook (auth.hook) does not answer")
        async with serving(app, port):
            async with asyncio.timeout(20):
                while (await post(relay, "/whep/hall", "grant")).status != 201:
                    await asyncio.sleep(0.05)
            await relay.until_logged("the hook (auth.hook) answers again")
        assert relay.log().count("does not answer") == 1


@pytest.mark.timing
async def test_a_slow_hook_delays_nobody_who_does_not_need_it() -> None:
    app, port = App(), free_port(SOCK_STREAM)
    settings = hooked(port) | {"auth.hook_timeout_ms": "3000"}
    async with serving(app, port), Relay(workers=1, settings=settings) as relay:
        stuck = [asyncio.create_task(post(relay, f"/whep/room{number}", "slow")) for number in range(100)]
        async with asyncio.timeout(20):
            while len(app.asked) < 60:
                await asyncio.sleep(0.01)
        public = [await post(relay, "/whep/lobby", None) for _ in range(20)]
        assert {answer.status for answer in public} == {201}
        assert not all(task.done() for task in stuck), "the hook is still waited for"
        assert sorted(answer.seconds for answer in public)[10] < 0.5
        told = await asyncio.gather(*stuck)
        assert {(answer.status, answer.reason) for answer in told} == {(504, "hook-timeout"), (503, "hook-busy")}


async def test_a_hook_over_https_has_to_show_a_certificate_that_is_trusted(tmp_path: Path) -> None:
    made = make_https_certificate(["127.0.0.1"], datetime.now(UTC), timedelta(days=1))
    (tmp_path / "certificate.pem").write_text(made.certificate_pem)
    (tmp_path / "key.pem").write_text(made.private_key_pem)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
    app, port = App(), free_port(SOCK_STREAM)
    trusting = {"SSL_CERT_FILE": str(tmp_path / "certificate.pem")}
    async with serving(app, port, tls):
        for environment, status in (({}, 502), (trusting, 201)):
            async with Relay(workers=1, settings=hooked(port, "https"), environment=environment) as relay:
                assert (await post(relay, "/whep/hall", "grant")).status == status
    assert len(app.asked) == 1, "no token goes to a server that is not trusted"


@pytest.mark.parametrize(("trusted", "address"), [("[]", "127.0.0.1"), ('["127.0.0.1"]', "203.0.113.9")])
async def test_the_hook_is_told_the_address_that_a_trusted_proxy_says(trusted: str, address: str) -> None:
    app, port = App(), free_port(SOCK_STREAM)
    settings = hooked(port) | {"http.trusted_proxies": trusted}
    async with serving(app, port), Relay(workers=1, settings=settings) as relay:
        assert (await post(relay, "/whep/hall", "grant", {"X-Forwarded-For": "10.0.0.1, 203.0.113.9"})).status == 201
    assert [question["address"] for question in app.asked] == [address]
