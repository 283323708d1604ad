"""HTTPS by the server itself: renewed without a connection lost, tickets that hold on every worker, and clients that
all come back at once.
"""

import asyncio
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest

from millrace.master.start.x509 import make_certificate
from tests.system.posts import OFFER
from tests.system.relay_process import Relay

CLIENT = ssl.create_default_context()
CLIENT.check_hostname = False
CLIENT.verify_mode = ssl.CERT_NONE
REQUEST = b"GET /rooms HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
BACK = 500
BACK_SECONDS = 5.0


def write(folder: Path) -> str:
    """Writes a fresh certificate and its key, one file after the other; returns the certificate."""
    made = make_certificate(datetime.now(UTC))
    (folder / "certificate.pem").write_text(made.certificate_pem)
    (folder / "key.pem").write_text(made.private_key_pem)
    return made.certificate_pem


@asynccontextmanager
async def serving(folder: Path, settings: Mapping[str, str] | None = None) -> AsyncIterator[Relay]:
    """A relay whose public port speaks HTTPS."""
    write(folder)
    files = {"http.certificate": f'"{folder / "certificate.pem"}"', "http.key": f'"{folder / "key.pem"}"'}
    async with Relay(settings=files | {**(settings or {})}) as relay:
        yield relay


class Client:
    """One connection."""

    async def open(self, relay: Relay) -> "Client":
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", relay.http_port, ssl=CLIENT)
        return self

    async def status(self) -> bytes:
        """Asks once more on this connection; returns the status line."""
        self._writer.write(REQUEST)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        await self._reader.readexactly(int(length.partition(b":")[2]))
        return head.partition(b"\r\n")[0]

    @property
    def certificate(self) -> str:
        """As the server has shown it."""
        shown = self._writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return ssl.DER_cert_to_PEM_cert(shown)

    def close(self) -> None:
        self._writer.close()


def connect(relay: Relay, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
    """Returns a connection on which one answer has come, and with it the ticket."""
    raw = socket.create_connection(("127.0.0.1", relay.http_port), timeout=10)
    client = CLIENT.wrap_socket(raw, server_hostname="localhost", session=session)
    client.sendall(REQUEST)
    assert client.recv(12) == b"HTTP/1.1 200"
    return client


async def test_offers_are_answered_and_the_banner_says_https(tmp_path: Path) -> None:
    async with serving(tmp_path) as relay, aiohttp.ClientSession() as http:
        url = f"https://127.0.0.1:{relay.http_port}"
        assert f"page     {url}/" in relay.log()
        headers = {"Content-Type": "application/sdp"}
        async with http.post(f"{url}/whep/demo", data=OFFER, headers=headers, ssl=CLIENT) as answer:
            assert answer.status == 201
            location = answer.headers["Location"]
        async with http.delete(f"{url}{location}", ssl=CLIENT) as answer:
            assert answer.status == 200
        async with http.get(f"{relay.admin}/metrics") as answer:
            assert "millrace_http_certificate_end_time_seconds " in await answer.text()


async def test_a_renewed_certificate_reaches_newcomers_of_all_workers_and_open_connections_go_on(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as relay:
        # On two workers, but for one time in thirty thousand.
        before = [await Client().open(relay) for _ in range(16)]
        renewed = write(tmp_path)
        await relay.until_logged("the HTTPS certificate was renewed", times=2)
        after = [await Client().open(relay) for _ in range(16)]
        assert {client.certificate for client in after} == {renewed}
        assert {await client.status() for client in (*before, *after)} == {b"HTTP/1.1 200 OK"}
        for client in (*before, *after):
            client.close()


async def test_files_that_became_unusable_change_nothing_and_are_said(tmp_path: Path) -> None:
    async with serving(tmp_path) as relay:
        shown = (await Client().open(relay)).certificate
        (tmp_path / "key.pem").unlink()
        await relay.until_logged("http.certificate, http.key: not read anew", times=2)
        os.kill(relay.pid, signal.SIGHUP)
        await relay.until_logged("the new configuration is refused and the old one stays: http.key")
        # A successor has never seen the files.
        for pid in relay.worker_pids():
            os.kill(pid, signal.SIGKILL)
        await relay.until_ready()
        assert (await Client().open(relay)).certificate == shown
        write(tmp_path)
        await relay.until_logged("the HTTPS certificate was renewed", times=2)


async def test_a_ticket_holds_on_every_worker_and_outlives_all_of_them(tmp_path: Path) -> None:
    async with serving(tmp_path) as relay:
        first = await asyncio.to_thread(connect, relay)
        for _ in range(16):
            again = await asyncio.to_thread(connect, relay, first.session)
            assert again.session_reused
            again.close()
        for pid in relay.worker_pids():
            os.kill(pid, signal.SIGKILL)
        await relay.until_ready()
        again = await asyncio.to_thread(connect, relay, first.session)
        assert again.session_reused
        again.close()
        first.close()


@pytest.mark.timing
async def test_500_clients_that_come_back_at_once_after_a_kill_are_all_in_within_five_seconds(tmp_path: Path) -> None:
    async with serving(tmp_path) as relay:
        clients = [await Client().open(relay) for _ in range(BACK)]
        for pid in relay.worker_pids():
            os.kill(pid, signal.SIGKILL)
        began = asyncio.get_running_loop().time()
        answers = await asyncio.gather(*(come_back(relay) for _ in clients))
        took = asyncio.get_running_loop().time() - began
        print(f"{BACK} clients were back after {took:.2f} s")
        assert set(answers) == {b"HTTP/1.1 200 OK"}
        assert took < BACK_SECONDS


async def come_back(relay: Relay) -> bytes:
    """A client that tries until it is answered, as those do whose connection has ended."""
    while True:
        client = Client()
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await client.open(relay)
            status = await client.status()
            client.close()
            return status
        await asyncio.sleep(0.05)
