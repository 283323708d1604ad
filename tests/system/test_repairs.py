"""Packets that come again: what the relay takes of a publisher, and what a viewer may have of the relay. With hand-made
clients, so that each packet's number is known. Read next: `relay/engine/core/src/forward/key_frames.rs`.
"""

import struct
import time

import pytest

from tests.clients.raw_client import RawClient, key_frame, later_frame, until_flows
from tests.system.relay_process import Relay

BATCH = 50
"""Packets that a socket's buffer takes at once."""
NACK, PLI = (205, 1), (206, 1)
"""Packet type and format (RFC 4585 section 6)."""


@pytest.mark.parametrize("later", [130, 800])
async def test_what_a_publisher_repeats_under_its_own_number_is_taken_many_packets_later(
    relay: Relay, later: int
) -> None:
    with RawClient(f"{relay.url}/whip/hall") as publisher, RawClient(f"{relay.url}/whep/hall") as viewer:
        publisher.post(0).connect()
        viewer.post(1).connect()
        until_flows(publisher, viewer)
        publisher.send(publisher.packet(key_frame()))
        lost = publisher.packet(later_frame(1) + b"lost")
        for first in range(0, later, BATCH):
            numbers = [number.to_bytes(4, "big") for number in range(first, first + BATCH)]
            for number in numbers:
                publisher.send(publisher.packet(later_frame(1) + number))
            assert any(packet.endswith(numbers[-1]) for packet in viewer.media())
        assert any(NACK in kinds_of(publisher, datagram) for datagram in publisher.datagrams())
        publisher.send(lost)
        assert any(packet.endswith(b"lost") for packet in viewer.media())


async def test_one_viewer_that_goes_on_asking_has_few_key_frames_made(relay: Relay) -> None:
    with RawClient(f"{relay.url}/whip/hall") as publisher, RawClient(f"{relay.url}/whep/hall") as viewer:
        publisher.post(0).connect()
        viewer.post(1).connect()
        until_flows(publisher, viewer)
        publisher.send(publisher.packet(later_frame(1)))
        (packet, *_) = viewer.media()
        ssrc = packet[8:12]
        request = struct.pack("!BBHIBBHI", 0x80, 201, 1, 1, 0x81, 206, 2, 1) + ssrc
        asked, requests, began = 0, 0, time.monotonic()
        while time.monotonic() < began + 5.0:
            viewer.rtcp(request)
            asked += 1
            for datagram in publisher.datagrams(0.05):
                if PLI in kinds_of(publisher, datagram):
                    requests += 1
                    publisher.send(publisher.packet(key_frame()))
            publisher.send(publisher.packet(later_frame(1)))
            list(viewer.media(0.02))
        assert asked > 20
        # Three in ten seconds, and what was under way before.
        assert 1 <= requests <= 4


def kinds_of(client: RawClient, datagram: bytes) -> set[tuple[int, int]]:
    """Packet type and format of each RTCP packet in it."""
    assert client.receiving is not None
    if not 192 <= datagram[1] < 224:
        return set()
    rest = bytes(client.receiving.unprotect_rtcp(datagram))
    found = set()
    while rest:
        found.add((rest[1], rest[0] & 31))
        rest = rest[4 * (int.from_bytes(rest[2:4], "big") + 1) :]
    return found
