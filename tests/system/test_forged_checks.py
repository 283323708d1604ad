"""What a recorded or forged check does to a real server: nothing to the call it names, and to its source at most three
times its bytes. In virtual time: `relay/engine/core/tests/engine_proofs.rs`. Read next: `tests/clients/raw_client.py`.
"""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from OpenSSL import SSL

from tests.clients.raw_client import RawClient, request
from tests.system.asking import metrics
from tests.system.relay_process import Relay
from tests.system.test_hostile import call, until_told

ROUNDS = 50
PACKETS = 10


@contextmanager
def elsewhere() -> Iterator[socket.socket]:
    """An address that is no client's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.setblocking(False)
        yield stranger


def bytes_at(stranger: socket.socket) -> int:
    """All that has come there."""
    came = 0
    with suppress(BlockingIOError):
        while True:
            came += len(stranger.recv(2048))
    return came


async def test_a_replayed_check_steals_no_packet(relay: Relay) -> None:
    with call(relay) as going, elsewhere() as stranger:
        recorded = going.viewer.stun()
        came = 0
        for _ in range(ROUNDS):
            stranger.sendto(recorded, going.viewer.relay)
            going.passes(PACKETS)
            came += bytes_at(stranger)
        print(f"{came} bytes came to who sent {ROUNDS * len(recorded)}, of {ROUNDS * PACKETS} packets none was missing")
        assert 0 < came <= 3 * ROUNDS * len(recorded)
        await until_counted(relay, "millrace_address_moves_refused_total")
        going.passes(PACKETS)


async def test_one_forged_check_floods_nobody(relay: Relay) -> None:
    with call(relay) as going, elsewhere() as victim:
        forged = going.viewer.stun()
        victim.sendto(forged, going.viewer.relay)
        while metrics(relay)["millrace_address_moves_refused_total"] == 0:
            going.passes(PACKETS)
        going.passes(PACKETS)
        came = bytes_at(victim)
        print(f"{came} bytes came for {len(forged)}")
        assert 0 < came <= 3 * len(forged)


async def test_replays_keep_no_dead_session_alive() -> None:
    async with Relay(settings={"timeouts.consent_seconds": "4"}) as relay:
        with RawClient(f"{relay.url}/whep/hall") as client:
            client.post().connect()
            # Its answers are over, and somebody repeats its last check in its name.
            recorded = client.stun()
            async with asyncio.timeout(30):
                while '"consent_lost"' not in (await session(relay, client)):
                    client.send(recorded)
                    await asyncio.sleep(0.2)


async def test_a_strangers_hello_and_alert_end_no_handshake(relay: Relay) -> None:
    with RawClient(f"{relay.url}/whip/hall") as client, elsewhere() as stranger:
        client.post()
        assert client.check()
        other = RawClient(f"{relay.url}/whip/hall")
        connection = other.dtls()
        with suppress(SSL.WantReadError):
            connection.do_handshake()
        hello = connection.bio_read(1500)
        alert = b"\x15\xfe\xfd" + bytes(7) + b"\x05" + b"\x00\x02" + b"\x02\x28"
        for _ in range(20):
            for datagram in (client.stun(), hello, alert, b"\x16\xfe\xfd" + bytes(8) + b"\x00\x01\x00"):
                stranger.sendto(datagram, client.relay)
        assert client.handshake()
        other.socket.close()
        await until_told(f"{relay.admin}/sessions/{client.session}", '"connected"')


async def until_counted(relay: Relay, name: str) -> None:
    async with asyncio.timeout(20):
        while metrics(relay)[name] == 0:
            await asyncio.sleep(0.05)


async def session(relay: Relay, client: RawClient) -> str:
    return (await asyncio.to_thread(request, "GET", f"{relay.admin}/sessions/{client.session}")).body
