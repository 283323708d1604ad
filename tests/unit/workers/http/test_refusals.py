"""What is said of refused requests, by a real server: a line and a count each, up to a bound."""

import logging
from collections import Counter
from collections.abc import AsyncIterator

import aiohttp
import pytest

from millrace.relay.contract.ids import NO_REQUEST
from millrace.relay.contract.problems import problem
from millrace.workers.http.origins import Guard
from millrace.workers.http.page import Page
from millrace.workers.http.refusals import LINES_A_SECOND, Refusals
from millrace.workers.http.server import Deadlines, HttpServer
from tests.unit.workers.http.http_kit import SDP, Control, Site, listen, public

BANNED = problem(NO_REQUEST, 403, "hook-refused", "banned")


class Watched(Refusals):
    """Keeps what is counted."""

    def __init__(self) -> None:
        self.counted: Counter[tuple[int, str]] = Counter()
        super().__init__(self._add, "/media")

    def _add(self, status: int, reason: str) -> None:
        self.counted[status, reason] += 1


@pytest.fixture
def watched() -> Watched:
    return Watched()


@pytest.fixture
async def watched_site(page: Page, watched: Watched) -> AsyncIterator[Site]:
    control = Control(reply=BANNED)
    server = HttpServer(public(control, page), Deadlines(5, 60), guard=Guard((), checks_host=True))
    server.refusals = watched
    descriptor, port = listen()
    await server.start([descriptor])
    async with aiohttp.ClientSession() as client:
        yield Site(f"http://127.0.0.1:{port}", port, control, client)
    await server.stop(1)


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    shown = ("protocol", "room", "status", "reason", "without_a_line")
    return [
        {name: record.__dict__[name] for name in shown if name in record.__dict__}
        for record in caplog.records
        if record.name == "millrace.http"
    ]


async def test_each_refusal_has_a_line_and_a_count_with_its_reason(
    watched_site: Site, watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    url, client = watched_site.url, watched_site.client
    headers = SDP | {"Authorization": "Bearer a-secret-token"}
    await client.post(f"{url}/whip/hall", data="v=0", headers=headers)
    await client.delete(f"{url}/whep/hall/00.0123456789abcdefghijkl", headers=headers)
    await client.post(f"{url}/whip/hall", data="v=0", headers={"Content-Type": "text/plain"})
    await client.get(f"{url}/rooms", headers={"Origin": "https://evil.example"})
    await client.post(f"{url}/media/whip/attic", data="v=0", headers=headers)
    await client.get(f"{url}/wp-login.php")
    await watched_site.raw(b"nonsense\r\n\r\n")
    assert lines(caplog) == [
        {"protocol": "whip", "room": "hall", "status": 403, "reason": "hook-refused"},
        {"protocol": "whep", "room": "hall", "status": 403, "reason": "hook-refused"},
        {"protocol": "whip", "room": "hall", "status": 415, "reason": "content-type"},
        {"protocol": "rooms", "status": 403, "reason": "other-origin"},
        {"protocol": "whip", "room": "attic", "status": 404, "reason": "no-such-page"},
    ]
    assert watched.counted == {
        (403, "hook-refused"): 2,
        (415, "content-type"): 1,
        (403, "other-origin"): 1,
        (404, "no-such-page"): 2,
        (400, "not-http"): 1,
    }
    assert "secret" not in caplog.text
    assert "0123456789" not in caplog.text


async def test_what_is_taken_has_neither(
    watched_site: Site, watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    watched_site.control.reply = Control().reply
    async with watched_site.client.post(f"{watched_site.url}/whip/hall", data="v=0", headers=SDP) as answer:
        assert answer.status == 201
    assert (lines(caplog), watched.counted) == ([], {})


async def test_a_flood_fills_no_log_and_is_counted(
    watched_site: Site, watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    room = "x" * 500
    for _ in range(LINES_A_SECOND + 7):
        await watched_site.client.post(f"{watched_site.url}/whip/{room}", data="v=0", headers=SDP)
    assert len(lines(caplog)) == LINES_A_SECOND
    assert all(len(str(line["room"])) == 256 for line in lines(caplog))
    watched.tick()
    assert lines(caplog)[-1] == {"without_a_line": 7}
    watched.tick()
    assert len(lines(caplog)) == LINES_A_SECOND + 1
    await watched_site.client.post(f"{watched_site.url}/whip/hall", data="v=0", headers=SDP)
    assert len(lines(caplog)) == LINES_A_SECOND + 2
    assert watched.counted == {(403, "hook-refused"): LINES_A_SECOND + 8}
