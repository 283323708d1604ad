"""Who gets in: tokens, and what a stranger gets for a bad request."""

import asyncio
import json
import os
import re
import signal
import time

import aiohttp
import jwt
import pytest
from aiortc import RTCPeerConnection

from tests.clients.aiortc_client import Picture
from tests.system.relay_process import Relay

SECRET = "0123456789abcdef0123456789abcdef"
SDP = {"Content-Type": "application/sdp"}
REPEATED = 5
"""The kernel counts processor time in ticks of 10 ms."""
ROUNDS = 3
"""On a machine that does something else one may be slow."""


def token(secret: str = SECRET, key: str = "devkey", expires: int = 60, **video: object) -> str:
    grants = {"room": "hall", "roomJoin": True} | video
    return jwt.encode(
        {"iss": key, "sub": "ann", "exp": int(time.time() + expires), "nbf": int(time.time()) - 10, "video": grants},
        secret,
    )


async def offer() -> str:
    connection = RTCPeerConnection()
    connection.addTrack(Picture(100))
    await connection.setLocalDescription(await connection.createOffer())
    sdp = connection.localDescription.sdp
    await connection.close()
    return sdp


async def test_tokens_admit_refuse_and_say_why() -> None:
    sdp = await offer()
    async with Relay(settings={"auth.keys": f'{{ devkey = "{SECRET}" }}'}) as relay, aiohttp.ClientSession() as http:
        cases = [
            ("whip", token(), 201),
            ("whip", None, 401),
            ("whip", "not.a.token", 401),
            ("whip", token(secret="x" * 32), 401),
            ("whip", token(key="nokey"), 401),
            ("whip", token(expires=-120), 401),
            ("whip", token(room="other"), 403),
            ("whip", token(roomJoin=False), 403),
            ("whip", token(canPublish=False), 403),
            ("whep", token(canPublish=False), 201),
            ("whep", token(canSubscribe=False), 403),
        ]
        reasons = set()
        for protocol, presented, status in cases:
            headers = SDP | ({"Authorization": f"Bearer {presented}"} if presented else {})
            body = sdp.replace("sendrecv", "recvonly") if protocol == "whep" else sdp
            async with http.post(f"{relay.url}/{protocol}/hall", data=body, headers=headers) as answer:
                text = await answer.text()
                assert answer.status == status, text
                if status != 201:
                    reasons.add(json.loads(text)["type"])
                if status == 401:
                    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert len(reasons) >= 7
        async with http.get(f"{relay.url}/rooms") as answer:
            assert answer.status == 401


async def test_a_session_is_its_owners() -> None:
    sdp = await offer()
    async with Relay(settings={"auth.keys": f'{{ devkey = "{SECRET}" }}'}) as relay, aiohttp.ClientSession() as http:
        bearer = {"Authorization": f"Bearer {token()}"}
        async with http.post(f"{relay.url}/whip/hall", data=sdp, headers=SDP | bearer) as answer:
            url = relay.url + answer.headers["Location"]
        async with http.delete(url) as answer:
            assert answer.status == 401
        async with http.delete(url, headers={"Authorization": f"Bearer {token(room='other')}"}) as answer:
            assert answer.status == 403
        async with http.delete(url, headers=bearer) as answer:
            assert answer.status == 200


SHARED = f'''[auth]
keys = {{ devkey = "{SECRET}" }}
public_rooms = ["public-*"]
'''


async def test_anybody_watches_a_public_room_and_only_the_keys_owner_publishes_until_a_reload_says_otherwise() -> None:
    sdp = await offer()
    watching = sdp.replace("sendrecv", "recvonly")
    bearer = {"Authorization": f"Bearer {token(room='public-1')}"}
    async with Relay(config=SHARED) as relay, aiohttp.ClientSession() as http:

        async def post(path: str, body: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
            async with http.post(relay.url + path, data=body, headers=SDP | (headers or {})) as answer:
                return answer.status, relay.url + answer.headers.get("Location", "")

        assert (await post("/whip/public-1", sdp))[0] == 401
        assert (await post("/whip/public-1", sdp, bearer))[0] == 201
        assert (await post("/whip/hall", sdp, {"Authorization": f"Bearer {token()}"}))[0] == 201
        assert (await post("/whep/hall", watching))[0] == 401
        status, url = await post("/whep/public-1", watching)
        assert status == 201
        rooms: list[str] = []
        # The worker that is asked may not have heard of them yet.
        async with asyncio.timeout(20):
            while not rooms:
                async with http.get(f"{relay.url}/rooms") as answer:
                    rooms = [room["name"] for room in await answer.json()]
        assert rooms == ["public-1"]
        async with http.delete(url) as answer:
            assert answer.status == 200
        _, url = await post("/whep/public-1", watching)
        relay.config_path.write_text(SHARED.replace("public-*", "open") + 'publish_from = ["127.0.0.0/8"]\n')
        os.kill(relay.pid, signal.SIGHUP)
        await relay.until_logged("all workers have the new configuration")
        assert (await post("/whep/public-1", watching))[0] == 401
        assert (await post("/whip/hall", sdp))[0] == 201
        assert (await post("/whip/hall", sdp, {"Origin": "https://evil.example"}))[0] == 401
        async with http.delete(url) as answer:
            assert answer.status == 200, "whoever has a session's id goes on having it"


def hostile(sdp: str) -> list[tuple[str, str]]:
    lines = sdp.split("\r\n")
    without = {
        name: "\r\n".join(line for line in lines if not line.startswith(f"a={name}:"))
        for name in ("ice-ufrag", "ice-pwd", "fingerprint")
    }
    video = sdp[sdp.index("m=video") :]
    return [
        ("empty", ""),
        ("not SDP", "hello"),
        ("no ufrag", without["ice-ufrag"]),
        ("no pwd", without["ice-pwd"]),
        ("no fingerprint", without["fingerprint"]),
        ("no RTP", sdp.replace("UDP/TLS/RTP/SAVPF", "UDP/TLS/UDPTL")),
        ("SDES", sdp + "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz\r\n"),
        ("short ufrag", re.sub("a=ice-ufrag:.*?\r", "a=ice-ufrag:abc\r", sdp)),
        ("short pwd", re.sub("a=ice-pwd:.*?\r", "a=ice-pwd:abcdefgh\r", sdp)),
        ("weak hash", re.sub("a=fingerprint:.*?\r", f"a=fingerprint:sha-1 {':'.join(['AB'] * 20)}\r", sdp)),
        ("short fingerprint", re.sub("a=fingerprint:.*?\r", "a=fingerprint:sha-256 AB:CD\r", sdp)),
        ("bundled twice", re.sub("a=group:BUNDLE (.*?)\r", r"a=group:BUNDLE \1 \1\r", sdp)),
        ("holdconn", sdp.replace("a=setup:actpass", "a=setup:holdconn")),
        ("ten thousand lines", sdp + "a=x\r\n" * 10_000),
        ("ten thousand m-lines", sdp + "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n" * 1000),
        ("many m-lines", sdp + video * 40),
    ]


async def test_every_hostile_offer_gets_its_own_reason_and_costs_nobody_else_anything(relay: Relay) -> None:
    sdp = await offer()
    reasons: dict[str, str] = {}
    async with aiohttp.ClientSession() as http:
        for name, text in hostile(sdp):
            costs: list[float] = []
            while len(costs) < ROUNDS and min(costs, default=1) >= 0.05:
                cpu_before = relay.cpu_seconds()
                for _ in range(REPEATED):
                    async with http.post(f"{relay.url}/whip/hall", data=text, headers=SDP) as answer:
                        problem = json.loads(await answer.text())
                        assert answer.status in (400, 413, 422), name
                        reasons[name] = problem["type"]
                costs.append((relay.cpu_seconds() - cpu_before) / REPEATED)
            assert min(costs) < 0.05, name
        async with http.post(f"{relay.url}/whip/hall", data="x" * 70_000, headers=SDP) as answer:
            assert answer.status == 413
        async with http.post(f"{relay.url}/whip/hall", data=sdp, headers={"Content-Type": "text/plain"}) as answer:
            assert answer.status == 415
        async with http.post(f"{relay.url}/whip/hall", data=sdp, headers=SDP) as answer:
            assert answer.status == 201
    assert len(set(reasons.values())) >= len(reasons) - 3, reasons


@pytest.mark.parametrize(
    "session", ["00." + "A" * 22, "01." + "A" * 22, "3f." + "A" * 22, "x", "00.", "zz." + "A" * 22]
)
async def test_a_foreign_session_is_unknown_on_every_worker(relay: Relay, session: str) -> None:
    for _ in range(6):
        async with aiohttp.ClientSession() as http:
            async with http.delete(f"{relay.url}/whip/hall/{session}") as answer:
                assert answer.status == 404
            async with http.get(f"{relay.admin}/sessions/{session}") as answer:
                assert answer.status == 404


async def test_a_full_worker_says_when_to_come_back() -> None:
    sdp = await offer()
    async with Relay(workers=1, settings={"limits.sessions_per_worker": "2"}) as relay, aiohttp.ClientSession() as http:
        statuses = []
        for _ in range(3):
            async with http.post(f"{relay.url}/whip/hall", data=sdp, headers=SDP) as answer:
                statuses.append(answer.status)
                after = answer.headers.get("Retry-After")
        assert statuses == [201, 201, 503]
        assert after is not None
        assert int(after) > 0


async def test_a_full_worker_passes_newcomers_on_and_only_the_last_one_refuses() -> None:
    sdp = await offer()
    async with Relay(workers=2, settings={"limits.sessions_per_worker": "3"}) as relay:
        said = []
        for _ in range(20):
            async with (
                aiohttp.ClientSession() as http,
                http.post(f"{relay.url}/whip/hall", data=sdp, headers=SDP) as answer,
            ):
                said.append((answer.status, answer.headers.get("Location", await answer.text()).rpartition("/")[2][:2]))
        assert sorted(said[:6]) == [(201, "00")] * 3 + [(201, "01")] * 3, "wherever the kernel took them"
        assert {status for status, _ in said[6:]} == {503}


@pytest.mark.timing
async def test_the_answer_to_a_post_takes_under_20_ms_at_the_99th_percentile_when_idle(relay: Relay) -> None:
    sdp = await offer()
    costs: list[float] = []
    slow: list[float] = []
    while len(slow) < ROUNDS and (min(costs, default=1) >= 0.01 or min(slow, default=1) >= 0.02):
        times = []
        cpu_before = relay.cpu_seconds()
        async with aiohttp.ClientSession() as http:
            for number in range(200):
                started = time.monotonic()
                async with http.post(f"{relay.url}/whip/room{number}", data=sdp, headers=SDP) as answer:
                    assert answer.status == 201
                    await answer.read()
                times.append(time.monotonic() - started)
        slow.append(sorted(times)[197])
        costs.append((relay.cpu_seconds() - cpu_before) / len(times))
    # Its own work is the same on a busy machine, where a wait for a core says nothing of the relay.
    assert min(costs) < 0.01, costs
    if os.getloadavg()[0] < 1:
        assert min(slow) < 0.02, slow


async def test_a_page_of_another_site_cannot_use_a_server_that_asks_for_no_token(relay: Relay) -> None:
    refused = [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://evil.example\\@127.0.0.1"}, 403),
        ({"Host": "evil.example"}, 421),
        ({"Host": "evil.example@127.0.0.1"}, 421),
    ]
    async with aiohttp.ClientSession() as http:
        async with http.post(f"{relay.url}/whip/hall", data=await offer(), headers=SDP) as answer:
            path = answer.headers["Location"]
        asked = [
            ("OPTIONS", f"{relay.url}/whep/hall"),
            ("POST", f"{relay.url}/whep/hall"),
            ("DELETE", relay.url + path),
            ("GET", f"{relay.url}/rooms"),
            ("GET", f"{relay.admin}/rooms"),
            ("DELETE", f"{relay.admin}/rooms/hall"),
        ]
        for method, url in asked:
            for headers, status in refused:
                async with http.request(method, url, headers=headers) as answer:
                    assert answer.status == status, (method, url)
                    assert "Access-Control-Allow-Origin" not in answer.headers
        async with http.delete(relay.url + path) as answer:
            assert answer.status == 200
