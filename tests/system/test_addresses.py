"""Which addresses clients are told, on a machine that has several: its own network, and none of this machine's."""

import subprocess
import time
from collections.abc import Iterator

import aiohttp
import pytest

from millrace.relay.access.grants import make_token
from tests.system.namespace import ADDRESS, network_namespace
from tests.system.posts import OFFER
from tests.system.relay_process import Relay

SECRET = "0123456789abcdef0123456789abcdef"
OUTWARD, SECOND = "10.20.30.5", "10.20.30.6"
SETTINGS = {
    "http.bind": '["0.0.0.0"]',
    "media.bind": '["::", "0.0.0.0"]',
    "auth.keys": f'{{devkey = "{SECRET}"}}',
}


@pytest.fixture
def machine() -> Iterator[None]:
    """One with a bridge that was there first, and a way to the Internet over another interface with two addresses."""
    with network_namespace():
        for command in (
            "link set lan0 down",
            "link set lan0 name docker0",
            "link set docker0 up",
            "link add eth0 type veth peer name eth1",
            f"address add {OUTWARD}/24 dev eth0",
            f"address add {SECOND}/24 dev eth0",
            "link set eth0 up",
            "link set eth1 up",
            "route replace default via 10.20.30.1 dev eth0",
        ):
            subprocess.run(["ip", *command.split()], check=True)
        yield


RESTART = "a=ice-ufrag:wxyz\r\na=ice-pwd:abcdefghijklmnopqrstuv\r\n"


def headers_of(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def answer(relay: Relay, host: str) -> str:
    """An answer to a viewer that has asked at this address of the server."""
    token = make_token("devkey", SECRET, identity="ann", room="hall", expires_at=time.time() + 600)
    headers = {"Content-Type": "application/sdp"} | headers_of(token)
    url = f"http://{host}:{relay.http_port}/whep/hall"
    async with aiohttp.ClientSession() as http, http.post(url, data=OFFER, headers=headers) as response:
        assert response.status == 201, await response.text()
        # An ICE restart names the one that comes first.
        restart = {"Content-Type": "application/trickle-ice-sdpfrag", "If-Match": "*"} | headers_of(token)
        session = f"http://{host}:{relay.http_port}{response.headers['Location']}"
        async with http.patch(session, data=RESTART, headers=restart) as restarted:
            assert restarted.status == 200, await restarted.text()
            sdp = await response.text()
            assert candidates(await restarted.text()) == candidates(sdp)[:1]
        return sdp


def candidates(sdp: str) -> list[str]:
    """The addresses in their order, IPv4 only."""
    lines = [line.split(" ") for line in sdp.splitlines() if line.startswith("a=candidate:")]
    priorities = [int(line[3]) for line in lines]
    assert priorities == sorted(priorities, reverse=True)
    return list(dict.fromkeys(line[4] for line in lines if ":" not in line[4]))


@pytest.mark.usefixtures("machine")
async def test_the_likeliest_address_comes_first_and_a_container_bridge_last() -> None:
    async with Relay(settings=SETTINGS) as relay:
        told = await answer(relay, "127.0.0.1")
        assert candidates(told) == [OUTWARD, SECOND, ADDRESS]
        assert f"c=IN IP4 {OUTWARD}" in told
        # Even if there is a newer address of IPv6: who has none may try the first candidate only.
        assert told.index(f" {OUTWARD} ") == min(told.index(f" {address} ") for address in candidates(told))


@pytest.mark.usefixtures("machine")
async def test_the_address_at_which_the_request_arrived_comes_before_all_others() -> None:
    async with Relay(settings=SETTINGS) as relay:
        for host in (ADDRESS, SECOND, OUTWARD):
            told = await answer(relay, host)
            assert candidates(told)[0] == host
            assert f"c=IN IP4 {host}" in told
            assert sorted(candidates(told)) == sorted([OUTWARD, SECOND, ADDRESS])


@pytest.mark.usefixtures("machine")
async def test_what_is_announced_for_the_address_of_the_request_comes_first() -> None:
    announced = f'["203.0.113.9/{SECOND}", "203.0.113.5/{OUTWARD}"]'
    async with Relay(settings=SETTINGS | {"media.announced": announced}) as relay:
        assert candidates(await answer(relay, SECOND))[0] == "203.0.113.9"
        assert candidates(await answer(relay, "127.0.0.1"))[0] == "203.0.113.5"
