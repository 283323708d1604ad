"""What strangers and clients gone bad send to the real server: it is counted and dropped, and costs nobody else a
packet. Hostile offers are in `tests/system/test_access.py`. Read next: `tests/clients/raw_client.py`.
"""

import asyncio
import os
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from millrace.relay.access.grants import make_token
from tests.clients.raw_client import (
    ABS_CAPTURE_TIME,
    DEPENDENCY_DESCRIPTOR,
    MID,
    PLAYOUT_DELAY,
    VIDEO_ORIENTATION,
    RawClient,
    key_frame,
    later_frame,
    request,
    until_flows,
)
from tests.system.asking import metrics
from tests.system.posts import OFFER
from tests.system.relay_process import Relay

SECRET = "0123456789abcdef0123456789abcdef"
RUNTS = [bytes([first]) + os.urandom(length) for first in range(256) for length in (*range(14), 19, 20, 27, 28, 40)]
"""Every first byte with every length up to a header's, and then those around the ends of other headers."""
BURST = 100


def drops(relay: Relay, reason: str) -> float:
    return metrics(relay)[f'millrace_drops_total{{direction="in",reason="{reason}"}}']


class Call:
    """A publisher on one worker and a viewer on the other, packet by packet."""

    def __init__(self, publisher: RawClient, viewer: RawClient) -> None:
        self.publisher, self.viewer = publisher, viewer
        self.sent = 0

    def passes(self, count: int = 10) -> None:
        """Sends so many packets, and holds the relay to delivering each one, once, in order, unchanged."""
        sent = []
        for _ in range(count):
            self.sent += 1
            payload = (later_frame if self.sent > 1 else key_frame)(self.sent) + self.sent.to_bytes(4, "big")
            sent.append(payload)
            self.publisher.send(self.publisher.packet(payload))
        got = []
        for packet in self.viewer.media():
            got.append(packet[-4:])
            if len(got) == count:
                break
        assert got == [payload[-4:] for payload in sent]


@contextmanager
def call(relay: Relay, host: str = "127.0.0.1", room: str = "hall") -> Iterator[Call]:
    with (
        RawClient(f"{relay.url}/whip/{room}", host, extensions={}) as publisher,
        RawClient(f"{relay.url}/whep/{room}", host, extensions={}) as viewer,
    ):
        publisher.post(0).connect()
        viewer.post(1).connect()
        made = Call(publisher, viewer)
        made.sent = until_flows(publisher, viewer)
        yield made


async def test_strangers_hear_nothing_and_cost_a_call_nothing(relay: Relay) -> None:
    with call(relay) as going, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.1", 0))
        unknown = going.publisher.stun(ufrag="00" + "A" * 8)
        unsigned = going.publisher.stun(pwd="B" * 24)
        plain = going.publisher.plain_packet(key_frame())
        authentic = going.publisher.packet(key_frame(), ssrc=7)
        hostile = [*RUNTS, b"", unknown, unsigned, plain, authentic, os.urandom(1500), b"\x80\xc8" + os.urandom(1000)]
        for start in range(0, len(hostile), BURST):
            for datagram in hostile[start : start + BURST]:
                stranger.sendto(datagram, going.publisher.relay)
            going.passes(5)
        stranger.settimeout(0.5)
        with pytest.raises(TimeoutError):
            stranger.recv(2048)
        counted = {reason: drops(relay, reason) for reason in ("not_demuxed", "unknown_source", "stun_malformed")}
        assert all(counted.values()), counted
        assert drops(relay, "stun_unknown_ufrag") >= 1
        assert drops(relay, "stun_integrity") == 1
        going.passes(20)


async def test_a_client_gone_bad_loses_only_what_is_bad(relay: Relay) -> None:
    with call(relay) as going, call(relay, room="other") as bystanders:
        bad = going.publisher
        for start in range(0, len(RUNTS), BURST):
            for datagram in RUNTS[start : start + BURST]:
                bad.send(datagram)
            going.passes(2)
            bystanders.passes(2)
        good = bad.packet(later_frame(1) + bytes(4))
        bad.send(good)
        assert next(going.viewer.media())[-4:] == bytes(4)
        replays_before = drops(relay, "srtp_replay")
        for _ in range(BURST):
            bad.send(good)
        corrupted = bad.packet(later_frame(1))
        for place in (12, 20, len(corrupted) - 1):
            bad.send(corrupted[:place] + bytes([corrupted[place] ^ 1]) + corrupted[place + 1 :])
        for _ in range(BURST):
            bad.send(bad.plain_packet(later_frame(1)))
            bad.sequence -= 1
        going.passes(20)
        bystanders.passes(20)
        assert drops(relay, "srtp_replay") == replays_before + BURST
        assert drops(relay, "srtp_authentication") >= BURST + 3


async def test_streams_of_one_client_are_bounded_and_others_do_not_notice() -> None:
    async with Relay(settings={"limits.streams_per_session": "4"}) as relay:
        with call(relay) as going, call(relay, room="other") as bystanders:
            for ssrc in range(1, 200):
                going.publisher.send(going.publisher.packet(key_frame(), ssrc=ssrc))
            bystanders.passes(20)
            assert drops(relay, "too_many_streams") == 199 - 3


async def test_addresses_of_one_client_are_bounded_and_it_may_still_move() -> None:
    async with Relay(settings={"limits.addresses_per_session": "2"}) as relay:
        with call(relay) as going:
            sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(10)]
            for each in sockets:
                each.bind(("127.0.0.1", 0))
                each.sendto(going.publisher.stun(nominates=False), going.publisher.relay)
            going.passes(20)
            assert drops(relay, "too_many_addresses") >= 1
            for each in sockets:
                each.close()


@pytest.mark.parametrize("steering", ["auto", "handover"])
async def test_clients_whose_nat_gives_them_new_addresses_are_followed(steering: str) -> None:
    async with Relay(settings={"media.steering": f'"{steering}"'}) as relay:
        with call(relay) as going:
            for moved in (going.publisher, going.viewer) * 3:
                moved.move()
                going.passes(20)


async def test_handshakes_are_bounded_and_the_next_one_finds_room() -> None:
    settings = {"limits.handshakes_per_worker": "2", "timeouts.handshake_seconds": "4"}
    async with Relay(workers=1, settings=settings) as relay:
        begun = [RawClient(f"{relay.url}/whip/hall").post() for _ in range(5)]
        for client in begun:
            assert client.check()
            client.say_hello()
        async with asyncio.timeout(20):
            while drops(relay, "too_many_handshakes") < 3:
                await asyncio.sleep(0.02)
        assert drops(relay, "too_many_handshakes") == 3
        for client in begun:
            await until_told(f"{relay.admin}/sessions/{client.session}", '"ended"')
            client.socket.close()
        with RawClient(f"{relay.url}/whip/later") as later:
            later.post().connect()


async def test_media_flows_over_ipv6(relay: Relay) -> None:
    with call(relay, host="::1") as going:
        going.passes(50)


async def test_header_extensions_are_passed_on_under_the_viewers_ids(relay: Relay) -> None:
    values = {4: os.urandom(8), 5: b"\x12\x34\x56", 6: b"\x01", 7: b"\x80\x01\x02"}
    theirs = {1: VIDEO_ORIENTATION, 9: MID, 10: DEPENDENCY_DESCRIPTOR, 11: PLAYOUT_DELAY, 12: ABS_CAPTURE_TIME}
    with (
        RawClient(f"{relay.url}/whip/hall") as publisher,
        RawClient(f"{relay.url}/whep/hall", extensions=theirs) as viewer,
    ):
        publisher.post(0).connect()
        viewer.post(1).connect()
        assert viewer.answered_extensions() == theirs
        until_flows(publisher, viewer)
        publisher.send(publisher.packet(key_frame(), {3: b"0"} | values))
        packet = next(viewer.media())
        assert packet[12:14] == b"\xbe\xde"
        found, at = {}, 16
        while at < 16 + 4 * int.from_bytes(packet[14:16], "big"):
            if packet[at]:
                length = (packet[at] & 0x0F) + 1
                found[packet[at] >> 4] = packet[at + 1 : at + 1 + length]
                at += length
            at += 1
        assert found == {9: b"0", 12: values[4], 11: values[5], 1: values[6], 10: values[7]}


async def test_a_bye_withdraws_the_track_and_its_next_packet_brings_it_back(relay: Relay) -> None:
    with call(relay) as going:
        stream = going.publisher.ssrc.to_bytes(4, "big")
        going.publisher.rtcp(b"\x80\xc9\x00\x01" + stream + b"\x81\xcb\x00\x01" + stream)
        await until_told(f"{relay.admin}/rooms/hall", '"tracks": []')
        going.publisher.send(going.publisher.packet(key_frame()))
        await until_told(f"{relay.admin}/rooms/hall", '"codec": "vp8"')


async def until_told(url: str, text: str) -> None:
    async with asyncio.timeout(20):
        while text not in request("GET", url).body:
            await asyncio.sleep(0.02)


async def test_one_token_that_opens_sessions_without_end_keeps_nobody_out() -> None:
    """First come, first served, none of the twenty is let in: the worker is full for `timeouts.ice_seconds`."""
    settings = {
        "auth.keys": f'{{ devkey = "{SECRET}" }}',
        "limits.sessions_per_worker": "40",
        "timeouts.ice_seconds": "600",
    }

    def token(identity: str) -> str:
        return make_token("devkey", SECRET, identity=identity, room="hall", expires_at=2e9, can_publish=False)

    async with Relay(workers=1, settings=settings) as relay:
        headers = {"Content-Type": "application/sdp", "Authorization": f"Bearer {token('flood')}"}
        flooding, counted = True, Counter[int]()

        def flood() -> None:
            while flooding:
                counted[request("POST", f"{relay.url}/whep/hall", OFFER, headers).status] += 1

        attack = asyncio.create_task(asyncio.to_thread(flood))
        try:
            async with asyncio.timeout(30):
                while counted[429] < 10:
                    await asyncio.sleep(0.01)
            for number in range(20):
                with RawClient(f"{relay.url}/whep/hall", extensions={}, token=token(f"ann-{number}")) as viewer:
                    await asyncio.to_thread(joins, viewer)
        finally:
            flooding = False
            await attack
        assert counted[201] < 40 + 20 + 20, "the places of those who came and went"
        assert set(counted) <= {201, 429, 503}
        async with asyncio.timeout(20):
            while metrics(relay)['millrace_sessions_evicted_total{slot="0"}'] < 20:
                await asyncio.sleep(0.05)


def joins(viewer: RawClient) -> None:
    """Comes again while the flood's sessions are too young to make room, as Retry-After asks."""
    deadline = time.monotonic() + 20
    while True:
        try:
            viewer.post()
            break
        except AssertionError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    viewer.connect()


async def test_bodies_that_never_come_keep_nobody_out() -> None:
    """1,500 from one address, without any token. When each that waits for its body counted as a request, and none made
    room for a connection, hardly one honest offer was answered while they lasted.
    """
    head = b"POST /whip/h HTTP/1.1\r\nHost: x\r\nContent-Type: application/sdp\r\nContent-Length: 900\r\n\r\nv=0"
    async with Relay(workers=1, settings={"limits.request_seconds": "600"}) as relay:
        held = []
        try:
            for _ in range(1_500):
                streams = await asyncio.open_connection("127.0.0.1", relay.http_port, local_addr=("127.0.0.9", 0))
                streams[1].write(head)
                held.append(streams)
            statuses: Counter[int] = Counter()
            for _ in range(100):
                answer = await asyncio.to_thread(
                    request, "POST", f"{relay.url}/whep/hall", OFFER, {"Content-Type": "application/sdp"}
                )
                statuses[answer.status] += 1
            assert statuses == {201: 100}
        finally:
            for _, writer in held:
                writer.transport.abort()
