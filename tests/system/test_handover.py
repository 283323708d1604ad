"""A worker lets go and a successor takes over, by itself or for a new configuration: no client has to do anything, and
no request fails. `MILLRACE_POSTS=10000` reloads until there were as many POSTs.
"""

import asyncio
import itertools
import os
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.clients.aiortc_client import Publisher, Viewer
from tests.clients.raw_client import request
from tests.system.asking import counter, delete, patch
from tests.system.posts import Posts
from tests.system.relay_process import Relay
from tests.system.watched import Watched, percentile, told, watched_call
from tests.system.worker_pids import pid_by_slot, until_gone


@pytest.mark.timing(cores=1)
async def test_workers_that_let_go_one_after_the_other_are_noticed_by_nobody() -> None:
    async with Relay(workers=2, settings={"log.level": '"debug"'}) as relay:
        publishers = [Publisher(f"{relay.url}/whip/room-{slot}") for slot in (0, 1)]
        viewers = [Viewer(f"{relay.url}/whep/room-{room}") for room in (0, 1)]
        for publisher, slot in zip(publishers, (0, 1), strict=True):
            await publisher.open(slot)
            await publisher.connected()
        for viewer, slot in zip(viewers, (0, 0), strict=True):
            await viewer.open(slot)
        watched = [Watched(viewer) for viewer in viewers]
        for viewer in viewers:
            await viewer.connected()
            await viewer.until_frames(30)
        states = [list(one.states) for one in watched]
        gaps: list[float] = []
        async with Posts(relay) as posts:
            for _, slot in itertools.product(range(2), (0, 1)):
                pid = pid_by_slot(relay)[slot]
                told_at = time.monotonic()
                os.kill(pid, signal.SIGUSR2)
                await until_gone(pid, 20)
                for one in watched:
                    await one.until_packets(time.monotonic() + 0.5, 30)
                    gaps.append(one.gap(told_at))
                await relay.until_ready()
                assert [await patch(client) for client in (*publishers, *viewers)] == [204] * 4
        print(told("let go", gaps), f"slowest POST {posts.slowest * 1000:.0f} ms", posts.statuses, posts.ends)
        print(*[line for line in relay.log().splitlines() if "after_ms" in line][-4:], sep="\n")
        assert set(posts.statuses) == {201}
        assert set(posts.ends) == {200}
        assert percentile(gaps, 0.5) < 2
        assert [one.states for one in watched] == states
        assert relay.log().count("worker released its sessions") == 4
        assert await counter(relay, "millrace_sessions_lost_total") == 0
        assert await counter(relay, 'millrace_drops_total{direction="in",reason="srtp_replay"}') == 0
        assert [await delete(client) for client in (*viewers, *publishers)] == [200] * 4
        for client in (*viewers, *publishers):
            await client.close()


async def test_the_server_stays_ready_while_its_workers_are_replaced() -> None:
    async with Relay(workers=2, config=configured("https://page-0.example")) as relay:
        relay.config_path.write_text(configured("https://page-1.example"))
        os.kill(relay.pid, signal.SIGHUP)
        said = set()
        async with asyncio.timeout(60):
            while DONE not in relay.log():
                said.add((await asyncio.to_thread(request, "GET", f"{relay.admin}/readyz")).body)
        assert said == {"ready\n"}


@pytest.mark.timing(cores=1)
async def test_a_new_configuration_reaches_all_workers_in_the_middle_of_calls_and_no_request_fails() -> None:
    wanted, seconds = int(os.environ.get("MILLRACE_POSTS", "2000")), 600 if "MILLRACE_POSTS" in os.environ else 20
    async with (
        Relay(workers=2, config=configured("https://page-0.example")) as relay,
        watched_call(relay) as (publisher, viewer, watched),
    ):
        states, pids = list(watched.states), relay.worker_pids()
        began, reloads = [time.monotonic()], 0
        end = began[0] + seconds
        async with Posts(relay) as posts:
            while reloads < 2 or (posts.statuses.total() < wanted and time.monotonic() < end):
                reloads += 1
                relay.config_path.write_text(configured(f"https://page-{reloads}.example"))
                os.kill(relay.pid, signal.SIGHUP)
                await relay.until_logged(DONE, reloads)
                began.append(time.monotonic())
        await watched.until_packets(time.monotonic(), 30)
        gaps = [watched.gap(since, until) for since, until in itertools.pairwise([*began[:-1], time.monotonic()])]
        print(told(f"{reloads} reloads in {began[-1] - began[0]:.1f} s", gaps))
        print(f"{posts.statuses.total()} POSTs, the slowest {posts.slowest * 1000:.0f} ms", posts.ends)
        assert set(posts.statuses) == {201}
        assert set(posts.ends) == {200}
        assert not set(relay.worker_pids()) & set(pids)
        assert watched.states == states
        # A machine that stands still does so in few of them; and then it is less than what clients bear.
        assert percentile(gaps, 0.5) < 2
        assert max(gaps) < 6
        assert {await allowed(relay, f"https://page-{reloads}.example") for _ in range(20)} == {True}
        assert {await allowed(relay, "https://page-0.example") for _ in range(20)} == {False}
        assert [await patch(client) for client in (publisher, viewer)] == [204, 204]
        await viewer.until_frames(len(viewer.frames) + 10)


DONE = "all workers have the new configuration"


def configured(origin: str) -> str:
    return f'[http]\ncors_origins = ["{origin}"]\n[workers]\nquick_death_seconds = 1\n'


async def allowed(relay: Relay, origin: str) -> bool:
    """As one worker says it, on a connection of its own."""
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{relay.url}/whip/hall", headers={"Origin": origin}) as answer,
    ):
        return "Access-Control-Allow-Origin" in answer.headers


@pytest.mark.timing(cores=1)
async def test_a_certificate_that_the_engine_does_not_take_costs_one_worker_a_moment_and_nobody_a_call(
    tmp_path: Path,
) -> None:
    async with (
        Relay(workers=2, settings={"workers.quick_death_seconds": "1"}) as relay,
        watched_call(relay, audio=False) as (_, _, watched),
    ):
        spared = pid_by_slot(relay)[1]
        began = time.monotonic()
        relay.config_path.write_text("[dtls]\n" + weak_certificate(tmp_path))
        os.kill(relay.pid, signal.SIGHUP)
        await relay.until_logged("worker 0 does not start with the new configuration")
        await relay.until_logged(DONE)
        assert pid_by_slot(relay)[1] == spared
        await watched.until_packets(time.monotonic(), 30)
        print(told("a reload that fails", [watched.gap(began)]))
        assert watched.gap(began) < 4
        assert await counter(relay, "millrace_sessions_lost_total") == 0
        # What is in force serves newcomers, too.
        async with Viewer(f"{relay.url}/whep/hall", audio=False) as late:
            await late.open(0)
            await late.until_frames(1)


def weak_certificate(folder: Path) -> str:
    """An RSA key of 1024 bits, which Python reads and OpenSSL finds too small."""
    key = rsa.generate_private_key(65537, 1024)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "weak")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "key.pem").write_bytes(pem)
    return f'certificate = "{folder}/certificate.pem"\nkey = "{folder}/key.pem"\n'
