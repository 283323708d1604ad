"""Clients that come over TCP: their frames, the bounds on their connections, and what becomes of these when a worker is
replaced or dies. Read next: `tests/clients/tcp_client.py`; `tests/browser/test_tcp.py` has browsers without UDP.
"""

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from tests.clients.raw_client import RawClient, key_frame, later_frame, request, until_flows
from tests.clients.tcp_client import TcpClient, frame
from tests.system.asking import metrics, until_moved
from tests.system.relay_process import Relay
from tests.system.worker_pids import pid_by_slot, until_gone

MAX_OF_SOURCE = 128
"""`relay/engine/shell/src/tcp/strangers.rs`."""


class Call:
    """A publisher on one worker and a viewer on the other, packet by packet."""

    def __init__(self, publisher: RawClient, viewer: RawClient) -> None:
        self.publisher, self.viewer = publisher, viewer
        self.sent = until_flows(publisher, viewer)

    def payload(self, size: int = 0) -> bytes:
        """Of the next packet."""
        self.sent += 1
        return (later_frame if self.sent > 1 else key_frame)(self.sent) + bytes(size) + self.sent.to_bytes(4, "big")

    def passes(self, count: int = 10) -> None:
        """Sends so many packets, and holds the relay to delivering each one, once, in order, unchanged."""
        sent = [self.payload() for _ in range(count)]
        for payload in sent:
            self.publisher.send(self.publisher.packet(payload))
        got = []
        for packet in self.viewer.media():
            got.append(packet[-4:])
            if len(got) == count:
                break
        assert got == [payload[-4:] for payload in sent]


@contextmanager
def call(relay: Relay, viewer: type[RawClient] = TcpClient) -> Iterator[Call]:
    with (
        TcpClient(f"{relay.url}/whip/hall", extensions={}) as publishes,
        viewer(f"{relay.url}/whep/hall", extensions={}) as watches,
    ):
        publishes.post(0).connect()
        watches.post(1).connect()
        yield Call(publishes, watches)


def drops(relay: Relay) -> dict[str, float]:
    return {name: count for name, count in metrics(relay).items() if count and "drops" in name}


def transport(relay: Relay, client: RawClient) -> dict[str, object]:
    found: dict[str, object] = json.loads(request("GET", f"{relay.admin}/sessions/{client.session}").body)["transport"]
    return found


async def test_a_call_over_tcp_is_served_by_its_workers_wherever_its_connections_land(relay: Relay) -> None:
    for _ in range(4):
        with call(relay) as going:
            going.passes(50)
            for client in (going.publisher, going.viewer):
                shown = transport(relay, client)
                assert (shown["remote_protocol"], shown["drops"]) == ("tcp", {})
            for client in (going.publisher, going.viewer):
                request("DELETE", client.session_url)
    found = metrics(relay)
    assert found["millrace_tcp_accepted_total"] == 8
    assert found["millrace_handovers_out_total"] == 0


async def test_frames_are_read_however_the_stream_is_cut(relay: Relay) -> None:
    with call(relay, RawClient) as going:
        payloads = [going.payload() for _ in range(30)]
        stream = b"".join(frame(going.publisher.packet(payload)) for payload in payloads)
        for byte in stream[:200]:
            going.publisher.socket.sendall(bytes([byte]))
        # An empty frame is no packet and does no harm.
        for start in range(200, len(stream), 777):
            going.publisher.socket.sendall(stream[start : start + 777])
        going.publisher.socket.sendall(frame(b""))
        got = [packet[-4:] for _, packet in zip(payloads, going.viewer.media(), strict=False)]
        assert got == [payload[-4:] for payload in payloads]
        going.passes(5)


async def test_a_frame_that_no_packet_fits_ends_its_connection_and_not_the_session(relay: Relay) -> None:
    with call(relay) as going:
        assert isinstance(going.publisher, TcpClient)
        going.publisher.socket.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert going.publisher.is_closed()
        assert metrics(relay)['millrace_drops_total{direction="in",reason="tcp_frame_too_long"}'] == 1
        going.publisher.dial()
        assert going.publisher.check()
        going.passes(20)


async def test_a_connection_without_a_valid_check_is_closed_and_one_source_has_so_many(relay: Relay) -> None:
    with call(relay) as going, ExitStack() as stack:
        strangers = []
        for _ in range(2 * MAX_OF_SOURCE + 10):
            stranger = stack.enter_context(socket.create_connection(going.publisher.relay))
            stranger.sendall(frame(going.publisher.stun(pwd="B" * 24)))
            strangers.append(stranger)
        began_at = time.monotonic()
        going.passes(20)
        for stranger in strangers:
            stranger.settimeout(20)
            with suppress(ConnectionResetError):
                assert stranger.recv(100) == b"", "nobody hears a word"
        assert time.monotonic() - began_at >= 4
        found = metrics(relay)
        # Two workers, each with its own count.
        assert found["millrace_tcp_unchecked_total"] <= 2 * MAX_OF_SOURCE
        assert found["millrace_tcp_refused_total"] + found["millrace_tcp_unchecked_total"] == len(strangers)
        assert found["millrace_tcp_refused_total"] >= 10
        going.passes(20)
        assert sum(value for name, value in found.items() if name.startswith("millrace_tcp_connections")) == 2, found


async def test_a_viewer_that_does_not_read_loses_whole_packets_and_costs_nobody_else_one(relay: Relay) -> None:
    with call(relay, RawClient) as going, TcpClient(f"{relay.url}/whep/hall", extensions={}) as stuck:
        stuck.post(1).connect()
        name = 'millrace_drops_total{direction="out",reason="tcp_backlog"}'
        deadline = time.monotonic() + 60
        missed = 0
        while metrics(relay)[name] < 1_000:
            assert time.monotonic() < deadline
            sent = [going.payload(1_000) for _ in range(20)]
            for payload in sent:
                going.publisher.send(going.publisher.packet(payload))
            got = set()
            for packet in going.viewer.media():
                got.add(packet[-4:])
                if packet[-4:] == sent[-1][-4:]:
                    break
            missed += len({payload[-4:] for payload in sent} - got)
        # A busy machine's reader may be overtaken in the log, which is counted for both viewers.
        overtaken = metrics(relay)['millrace_drops_total{direction="out",reason="log_overtaken"}']
        assert missed <= overtaken / 2, drops(relay)
        # What lies in the kernel's buffers is whole, and then it goes on.
        stuck.answers_requests = False
        last = b""
        while last != going.sent.to_bytes(4, "big"):
            assert time.monotonic() < deadline
            for _ in range(5):
                going.publisher.send(going.publisher.packet(going.payload()))
            for packet in stuck.media(0.2):
                last = packet[-4:]


async def test_connections_stay_while_sessions_move_and_workers_are_exchanged(relay: Relay) -> None:
    with call(relay) as going:
        for client, slot in ((going.publisher, 1), (going.viewer, 0), (going.publisher, 0)):
            await until_moved(relay, client.session_url, slot)
            going.passes(20)
        relay.config_path.write_text("[media]\nrepair_delay_ms = 300\n")
        os.kill(relay.pid, signal.SIGHUP)
        await relay.until_logged("all workers have the new configuration")
        going.passes(20)
        os.kill(relay.pid, signal.SIGUSR2)
        await relay.until_logged("all workers have the new configuration", 2)
        going.passes(20)
        assert metrics(relay)["millrace_tcp_accepted_total"] == 2


@pytest.mark.parametrize("role", ["publisher", "viewer"])
async def test_after_a_workers_death_a_client_goes_on_over_another_connection(role: str) -> None:
    async with Relay(settings={"workers.quick_death_seconds": "1"}) as relay:
        with call(relay) as going:
            client = going.publisher if role == "publisher" else going.viewer
            assert isinstance(client, TcpClient)
            pid = pid_by_slot(relay)[0 if role == "publisher" else 1]
            os.kill(pid, signal.SIGKILL)
            assert await asyncio.to_thread(client.is_closed), "the kernel closes what the worker had"
            began_at = time.monotonic()
            client.dial()
            assert client.check()
            # Our answer to the request that follows moves media there.
            before = client.requests
            while client.requests == before:
                assert time.monotonic() < began_at + 10
                client.until(lambda _: True, 0.02)
            print(f"served again {1000 * (time.monotonic() - began_at):.0f} ms after the connection ended")
            await until_gone(pid, 5)
            going.sent += until_flows(going.publisher, going.viewer)
            going.passes(20)
