"""The machine's addresses change while the server runs: a network that comes up after it, another address of a DHCP
server. Clients are told of what there is, nothing is started anew, and calls go on. Read next:
`master/start/following.py`.
"""

import asyncio
import os
import re
import signal
import subprocess
from collections.abc import Iterator

import pytest

from millrace.relay.access.grants import make_token
from tests.clients.raw_client import RawClient, later_frame, until_flows
from tests.system.namespace import network_namespace
from tests.system.relay_process import Relay
from tests.system.worker_pids import pid_by_slot, until_gone

SECRET = "0123456789abcdef0123456789abcdef"
FIRST, SECOND, THIRD = "10.20.30.5", "10.20.30.6", "10.20.31.7"
SETTINGS = {
    "http.bind": '["0.0.0.0"]',
    "media.bind": '["0.0.0.0"]',
    "auth.keys": f'{{devkey = "{SECRET}"}}',
}
TOKEN = make_token("devkey", SECRET, identity="ann", room="hall", expires_at=4e9)


def ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True)


@pytest.fixture
def offline() -> Iterator[None]:
    """A machine whose network has not come up."""
    with network_namespace():
        ip("link set lan0 down")
        ip("address flush dev lan0")
        yield


def add(address: str) -> None:
    ip(f"address add {address}/24 dev lan0")


def client(relay: Relay, address: str, path: str = "whip") -> RawClient:
    """Which reaches the server at this address."""
    return RawClient(f"http://{address}:{relay.http_port}/{path}/hall", address, extensions={}, token=TOKEN)


def told(relay: Relay, address: str) -> list[str]:
    """The addresses that an answer names, to a request that came to this address."""
    with client(relay, address, "whep") as asking:
        asking.post()
        found = re.findall(r"a=candidate:\S+ 1 udp \d+ (\S+)", asking.answer)
        assert re.findall(r"a=candidate:\S+ 1 tcp \d+ (\S+)", asking.answer) == found, "over TCP the same"
        return found


async def until_told(relay: Relay, address: str, expected: list[str]) -> None:
    async with asyncio.timeout(30):
        for _ in iter(int, 1):
            # Workers are replaced one after another, and each of them answers.
            if all([await asyncio.to_thread(told, relay, address) == expected for _ in range(6)]):
                return
            await asyncio.sleep(0.1)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("steering", ["auto", "handover"])
async def test_a_network_that_comes_up_after_the_start_is_served(steering: str) -> None:
    async with Relay(workers=2, settings=SETTINGS | {"media.steering": f'"{steering}"'}) as relay:
        assert "this machine has no address but loopback" in relay.log()
        assert await asyncio.to_thread(told, relay, "127.0.0.1") == ["127.0.0.1"]
        ip("link set lan0 up")
        add(FIRST)
        await until_told(relay, FIRST, [FIRST])
        with client(relay, FIRST) as publisher, client(relay, FIRST, "whep") as viewer:
            publisher.post(0).connect()
            viewer.post(1).connect()
            sent = await asyncio.to_thread(until_flows, publisher, viewer)
            # Another one comes while they talk, and all workers are replaced for it.
            add(SECOND)
            media = viewer.media(60)
            passing = asyncio.create_task(until_told(relay, SECOND, [SECOND, FIRST]))
            while not passing.done():
                sent += 1
                publisher.send(publisher.packet(later_frame(sent)))
                assert (await asyncio.to_thread(next, media))[12:] == later_frame(sent)
            await passing
        # What the master has bound since the start is there for whoever comes after it.
        for number in (signal.SIGUSR2, signal.SIGKILL):
            victim = relay.pid if number == signal.SIGUSR2 else pid_by_slot(relay)[0]
            os.kill(victim, number)
            if number == signal.SIGKILL:
                await until_gone(victim, 30)
            else:
                await relay.until_logged("the new program takes over")
            await until_told(relay, SECOND, [SECOND, FIRST])
            with client(relay, SECOND) as publisher, client(relay, SECOND, "whep") as viewer:
                publisher.post(0).connect()
                viewer.post(1).connect()
                await asyncio.to_thread(until_flows, publisher, viewer)


@pytest.mark.usefixtures("offline")
async def test_an_address_that_is_replaced_is_told_no_longer() -> None:
    ip("link set lan0 up")
    add(FIRST)
    async with Relay(workers=2, settings=SETTINGS) as relay:
        await until_told(relay, FIRST, [FIRST])
        ip(f"address del {FIRST}/24 dev lan0")
        add(THIRD)
        await until_told(relay, THIRD, [THIRD])
        with client(relay, THIRD) as publisher:
            publisher.post().connect()
        ip(f"address del {THIRD}/24 dev lan0")
        await relay.until_logged("this machine has no address but loopback")
        # It comes back with the address that it had at first.
        add(FIRST)
        await until_told(relay, FIRST, [FIRST])
        with client(relay, FIRST) as publisher:
            publisher.post().connect()


@pytest.mark.usefixtures("offline")
async def test_an_address_that_comes_and_goes_without_end_costs_little() -> None:
    ip("link set lan0 up")
    add(FIRST)
    async with Relay(workers=1, settings=SETTINGS) as relay:
        for _ in range(150):
            add(SECOND)
            ip(f"address del {SECOND}/24 dev lan0")
        add(SECOND)
        await until_told(relay, SECOND, [SECOND, FIRST])
        assert relay.log().count("workers are replaced one after another") < 10
