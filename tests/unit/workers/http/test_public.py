"""The public routes: what reaches control, and what comes back."""

from dataclasses import replace

import pytest

from millrace.relay.contract.ids import RequestId
from millrace.relay.contract.inputs import (
    Deleted,
    Offered,
    Patched,
    RoomsListed,
)
from millrace.relay.contract.protocol import Protocol
from millrace.workers.http.page import Page
from tests.unit.workers.http.http_kit import FRAGMENT, SDP, Control, Site, public, serve


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
    assert site.control.asked == [
        Offered(RequestId(0), Protocol.WHIP, "r/é", "abc.def", "v=0\r\n", None, "127.0.0.1", True, "127.0.0.1")
    ]


async def test_a_viewer_may_name_the_participant_and_sends_no_token(site: Site) -> None:
    headers = {"Content-Type": "application/sdp; charset=utf-8", "Authorization": "Basic eA=="}
    async with site.client.post(
        f"{site.url}/whep/hall?participant=ann&max-height=360", data="v=0", headers=headers
    ) as answer:
        assert answer.status == 201
    assert site.control.asked == [
        Offered(RequestId(0), Protocol.WHEP, "hall", None, "v=0", "ann", "127.0.0.1", False, "127.0.0.1", "360")
    ]


async def test_patch_and_delete_name_the_session(site: Site) -> None:
    url = f"{site.url}/whip/hall/01.abc"
    async with site.client.patch(url, data="a=x", headers=FRAGMENT | {"If-Match": '"t"'}) as answer:
        assert answer.status == 201
    async with site.client.delete(url, headers={"Authorization": "Bearer t"}) as answer:
        assert answer.status == 201
    assert site.control.asked == [
        Patched(RequestId(0), "01.abc", None, '"t"', "a=x", "127.0.0.1"),
        Deleted(RequestId(0), "01.abc", "t"),
    ]


async def test_options_say_what_is_accepted(site: Site) -> None:
    preflight = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    async with site.client.options(f"{site.url}/whip/hall", headers=preflight) as answer:
        assert answer.status == 204
        assert answer.headers["Accept-Post"] == "application/sdp"
        assert answer.headers["Access-Control-Allow-Methods"] == "GET, HEAD, POST, OPTIONS"
        assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
        assert "If-Match" in answer.headers["Access-Control-Allow-Headers"]
    async with site.client.options(f"{site.url}/whep/hall/00.x") as answer:
        assert answer.headers["Accept-Patch"] == "application/trickle-ice-sdpfrag"
        assert answer.headers["Allow"] == "GET, HEAD, PATCH, DELETE, OPTIONS"
        assert "Access-Control-Allow-Methods" not in answer.headers


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_get_succeeds_without_content_and_tells_a_whep_endpoint(site: Site, method: str) -> None:
    for path, content_type in [
        ("/whip/hall", None),
        ("/whep/hall", "application/sdp"),
        ("/whip/hall/00.x", None),
        ("/whep/hall/00.x", None),
    ]:
        async with site.client.request(method, f"{site.url}{path}") as answer:
            assert answer.status in (200, 204)
            assert answer.headers.get("Content-Type") == content_type
            assert await answer.read() == b""
    assert site.control.asked == []


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "PROPFIND"])
async def test_other_methods_get_405_with_allow(site: Site, method: str) -> None:
    async with site.client.request(method, f"{site.url}/whip/hall") as answer:
        assert answer.status == 405
        assert answer.headers["Allow"] == "GET, HEAD, POST, OPTIONS"
    if method not in ("DELETE", "PATCH"):
        async with site.client.request(method, f"{site.url}/whip/hall/00.x") as answer:
            assert answer.status == 405
            assert answer.headers["Allow"] == "GET, HEAD, PATCH, DELETE, OPTIONS"
    assert site.control.asked == []


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
        assert site.control.asked.pop() == RoomsListed(RequestId(0), token, "127.0.0.1")


async def test_a_proxys_path_may_stand_before_every_path_or_be_stripped(page: Page) -> None:
    control = Control()
    routes = replace(public(control, page), public_path="/site/media")
    async for site in serve(routes, control, routes.deadlines, 8):
        for path in ("/site/media/whip/hall", "/whip/hall"):
            async with site.client.post(site.url + path, data="v=0", headers=SDP) as answer:
                assert answer.status == 201
        for path in ("/site/media/", "/"):
            async with site.client.get(site.url + path) as answer:
                assert answer.status == 200
        async with site.client.get(f"{site.url}/site/media", allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (308, "/site/media/")
        async with site.client.get(f"{site.url}/site/other") as answer:
            assert answer.status == 404
    assert [asked.room for asked in control.asked if isinstance(asked, Offered)] == ["hall", "hall"]
