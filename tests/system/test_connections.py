"""Connections that proxies keep, and heads as long as access proxies make them, against the real server. Read next:
`workers/http/connection.py`.
"""

import asyncio
import json
import os
import re
import signal
import socket
import struct
from contextlib import suppress

import pytest

from tests.clients.raw_client import request
from tests.system.relay_process import ROOT, Relay

OFFER = (ROOT / "tests/vectors/sdp/chromium156.pt96.sdp").read_bytes()
VIEWER = (ROOT / "tests/vectors/sdp/chromium156.viewer.sdp").read_bytes()
PATIENT = {"timeouts.ice_seconds": "3600", "workers.beat_seconds": "60"}
"""No session ends by itself, and a worker may stand still."""
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(relay: Relay) -> Streams:
    return await asyncio.open_connection("127.0.0.1", relay.http_port)


async def ask(streams: Streams, line: str, *fields: str, body: bytes = b"") -> int:
    """The status of a request on a connection that is kept."""
    reader, writer = streams
    head = [f"{line} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}", *fields, "", ""]
    writer.write("\r\n".join(head).encode() + body)
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
    length = next(field for field in answer.split(b"\r\n") if field.lower().startswith(b"content-length:"))
    await reader.readexactly(int(length.partition(b":")[2]))
    return int(answer.split(b" ")[1])


def leave(relay: Relay, fields: str, times: int) -> None:
    """So many clients ask for a session and go at once. The workers stand still meanwhile: a client whose kernel has
    taken the answer before it goes has read it, for all that the server can know.
    """
    workers = relay.worker_pids()
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    for _ in range(times):
        with socket.create_connection(("127.0.0.1", relay.http_port), timeout=20) as leaving:
            leaving.sendall(f"POST /whip/gone HTTP/1.1\r\n{fields}".encode() + OFFER)
    for pid in workers:
        os.kill(pid, signal.SIGCONT)


async def test_a_proxys_connection_is_kept_longer_than_a_request_may_take() -> None:
    async with Relay(workers=1, settings={"limits.request_seconds": "1"}) as relay:
        kept, silent = await connect(relay), await connect(relay)
        assert await ask(kept, "GET /rooms") == 200
        for _ in range(3):
            with suppress(ConnectionResetError):
                assert await asyncio.wait_for(silent[0].read(), 20) == b""
            silent[1].close()
            silent = await connect(relay)
        # Three times as long as a request may take, and a POST goes through.
        assert await ask(kept, "POST /whip/hall", "Content-Type: application/sdp", body=OFFER) == 201
        for _, writer in (kept, silent):
            writer.close()


@pytest.mark.parametrize(("length", "is_taken"), [(8_300, True), (16_000, True), (30_000, True), (40_000, False)])
async def test_long_cookies_of_the_site_are_passed_over(relay: Relay, length: int, is_taken: bool) -> None:
    cookie, sdp = f"Cookie: CF_Authorization={'x' * length}", "Content-Type: application/sdp"
    for line, right, body in [
        ("GET /", 200, b""),
        ("POST /whip/hall", 201, OFFER),
        ("POST /whep/hall", 201, VIEWER),
    ]:
        streams = await connect(relay)
        assert await ask(streams, line, cookie, sdp, body=body) == (right if is_taken else 431)
        streams[1].close()


async def test_a_client_that_ends_its_side_is_answered_and_one_that_closes_leaves_no_session() -> None:
    async with Relay(settings=PATIENT) as relay:
        fields = f"Host: 127.0.0.1\r\nContent-Type: application/sdp\r\nContent-Length: {len(OFFER)}\r\n\r\n"
        reader, writer = await connect(relay)
        writer.write(f"POST /whip/hall HTTP/1.1\r\n{fields}".encode() + OFFER)
        writer.write_eof()
        assert (await asyncio.wait_for(reader.read(), 20)).startswith(b"HTTP/1.1 201 ")
        writer.close()
        leave(relay, fields, 10)
        async with asyncio.timeout(20):
            while len(re.findall("session closed .*room=gone .*cause=deleted", relay.log())) < 10:
                await asyncio.sleep(0.05)
        rooms = request("GET", f"{relay.admin}/rooms").body
        assert "hall" in rooms
        assert "gone" not in rooms


async def test_a_client_that_resets_the_connection_once_it_has_its_answer_keeps_its_session() -> None:
    async with Relay(settings=PATIENT) as relay:
        fields = f"Host: 127.0.0.1\r\nContent-Type: application/sdp\r\nContent-Length: {len(OFFER)}\r\n\r\n"
        for _ in range(20):
            reader, writer = await connect(relay)
            writer.write(f"POST /whip/hall HTTP/1.1\r\n{fields}".encode() + OFFER)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
            length = re.search(rb"Content-Length: (\d+)", head)
            assert length is not None
            await reader.readexactly(int(length[1]))
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        # Whoever comes after them and is gone is found out after them.
        leave(relay, fields, 4)
        await relay.until_logged("room=gone", times=8)
        assert len(json.loads(request("GET", f"{relay.admin}/rooms/hall").body)["sessions"]) == 20
