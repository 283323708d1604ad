"""WHIP (RFC 9725) and WHEP as the standards have them, against the real server: headers and statuses that clients
build on, and an ICE restart while media goes on. Read next: `workers/http/public.py`.
"""

import re
from collections.abc import AsyncIterator

import pytest

from tests.clients.raw_client import Answered, RawClient, later_frame, request, until_flows
from tests.system.relay_process import Relay

SDP = {"Content-Type": "application/sdp"}
FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}
SERVERS = (
    '[{urls=["stun:stun.example.org"]},{urls=["turn:turn.example.org?transport=udp"],username="u",credential="c"}]'
)
ORIGIN = "https://a.example"
SETTINGS = {"ice.servers": SERVERS, "http.cors_origins": f'["{ORIGIN}"]'}
NEW = ("newufrag", "newpwd" * 4)


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    async with Relay(settings=SETTINGS) as relay:
        yield relay


def fragment(ufrag: str, pwd: str) -> str:
    return (
        f"a=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\nm=video 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n"
        "a=candidate:1 1 udp 2130706431 192.0.2.9 5000 typ host\r\na=end-of-candidates\r\n"
    )


def patch(client: RawClient, body: str, if_match: str | None) -> Answered:
    return request("PATCH", client.session_url, body, FRAGMENT | ({"If-Match": if_match} if if_match else {}))


@pytest.mark.parametrize("protocol", ["whip", "whep"])
async def test_a_post_is_answered_with_all_that_the_standard_asks_for(relay: Relay, protocol: str) -> None:
    with RawClient(f"{relay.url}/{protocol}/hall") as client:
        answered = request("POST", client.url, client.offer(), SDP | {"Origin": ORIGIN})
    assert answered.status == 201
    headers = answered.headers
    assert re.fullmatch(rf"/{protocol}/hall/0[01]\.[A-Za-z0-9_-]{{22,}}", headers["Location"])
    assert re.fullmatch(r'"[^"]+"', headers["ETag"])
    assert headers["Content-Type"] == "application/sdp"
    assert headers["Accept-Patch"] == "application/trickle-ice-sdpfrag"
    assert 'rel="ice-server"' in headers["Link"]
    assert headers["Access-Control-Allow-Origin"] == ORIGIN
    assert {"Location", "ETag", "Link"} <= set(headers["Access-Control-Expose-Headers"].split(", "))
    assert "a=ice-lite" in answered.body
    assert "a=end-of-candidates" in answered.body
    assert answered.body.count("typ host") >= 2


@pytest.mark.parametrize("protocol", ["whip", "whep"])
async def test_methods_and_preflights(relay: Relay, protocol: str) -> None:
    with RawClient(f"{relay.url}/{protocol}/hall") as client:
        client.post()
        for url, methods, accepts in (
            (client.url, "GET, HEAD, POST, OPTIONS", "Accept-Post"),
            (client.session_url, "GET, HEAD, PATCH, DELETE, OPTIONS", "Accept-Patch"),
        ):
            asked = {
                "Origin": ORIGIN,
                "Access-Control-Request-Method": methods.split(",")[0],
                "Access-Control-Request-Headers": "authorization,content-type,if-match",
            }
            preflight = request("OPTIONS", url, headers=asked)
            assert preflight.status == 204
            assert accepts in preflight.headers
            assert preflight.headers["Access-Control-Allow-Methods"] == methods
            assert "Authorization" in preflight.headers["Access-Control-Allow-Headers"]
            for method in ("GET", "HEAD"):
                answered = request(method, url)
                assert (answered.status in (200, 204), answered.body) == (True, "")
            refused = request("PUT", url)
            assert (refused.status, refused.headers["Allow"]) == (405, methods)
        kind = request("HEAD", client.url).headers.get("Content-Type")
        assert kind == ("application/sdp" if protocol == "whep" else None)


@pytest.mark.parametrize("protocol", ["whip", "whep"])
async def test_a_patch_is_taken_or_refused_by_its_precondition(relay: Relay, protocol: str) -> None:
    with RawClient(f"{relay.url}/{protocol}/hall") as client:
        client.post()
        same = fragment(client.ufrag, client.pwd)
        assert patch(client, same, None).status == 428
        assert patch(client, same, '"another"').status == 412
        assert patch(client, same, client.etag).status == 204
        assert patch(client, fragment(*NEW), client.etag).status == 422
        assert patch(client, "nonsense", client.etag).status == 400
        restarted = patch(client, fragment(*NEW), "*")
        assert restarted.status == 200
        assert restarted.headers["Content-Type"] == FRAGMENT["Content-Type"]
        assert restarted.body.count("a=candidate:") == 1
        assert restarted.headers["ETag"] != client.etag
        assert patch(client, fragment(*NEW), client.etag).status == 412
        assert patch(client, fragment(*NEW), restarted.headers["ETag"]).status == 204
        assert request("PATCH", client.session_url, same, SDP | {"If-Match": "*"}).status == 415
        assert request("DELETE", client.session_url).status == 200
        assert patch(client, same, client.etag).status == 404
        assert request("DELETE", client.session_url).status == 404


async def test_media_goes_on_through_an_ice_restart_and_through_one_that_fails(relay: Relay) -> None:
    with (
        RawClient(f"{relay.url}/whip/hall", extensions={}) as publisher,
        RawClient(f"{relay.url}/whep/hall", extensions={}) as viewer,
    ):
        publisher.post(0).connect()
        viewer.post(1).connect()
        until_flows(publisher, viewer)
        media = viewer.media(60)
        numbers = iter(range(1, 100))

        def passes() -> None:
            payload = later_frame(next(numbers))
            publisher.send(publisher.packet(payload))
            assert next(media)[12:] == payload

        # A restart that never goes further than its PATCH: the session lives on under its old credentials.
        assert patch(publisher, fragment(*NEW), "*").status == 200
        assert publisher.check()
        passes()
        assert patch(publisher, "a=ice-ufrag:x\r\na=ice-pwd:y\r\n", "*").status == 400
        passes()
        second = ("otherufrag", "otherpwd" * 3)
        restarted = patch(publisher, fragment(*second), "*")
        publisher.ufrag, publisher.pwd = second
        publisher.answer = restarted.body
        assert publisher.check()
        passes()
