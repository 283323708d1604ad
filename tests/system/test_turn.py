"""A network that lets no UDP out: clients reach the relay through coturn over TCP and TLS, as `deploy/turnserver.conf`
has it, with credentials that the relay has made.
"""

import asyncio
import re
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from aiortc import RTCIceServer

from millrace.master.start.x509 import make_https_certificate
from millrace.relay.access.grants import make_token
from tests.clients.aiortc_client import Publisher, Viewer
from tests.system.namespace import ADDRESS, network_namespace
from tests.system.posts import OFFER
from tests.system.relay_process import ROOT, Relay
from tests.system.test_operator import millrace
from tests.system.unpacked import environment, program

KEY = "0123456789abcdef0123456789abcdef"
SECRET = "north-of-the-mill"
RELAYED = "49152-50151"
LINK = re.compile(r'<(?P<url>[^>]+)>; rel="ice-server"; username="(?P<username>.*?)"; credential="(?P<credential>.*?)"')


@pytest.fixture
def no_udp() -> Iterator[None]:
    """A network in which nobody but coturn, known by its ports, reaches the relay over UDP. The rules stand for a
    firewall between the clients and both servers.
    """
    with network_namespace():
        subprocess.run(["nft", "-f", "-"], input=RULES, text=True, check=True)
        yield


RULES = f"""
table inet firewall {{
    chain arriving {{
        type filter hook input priority 0;
        udp sport {RELAYED} accept
        udp dport {RELAYED} accept
        meta l4proto udp counter drop
    }}
}}
"""


@asynccontextmanager
async def serving(folder: Path, url: str) -> AsyncIterator[Relay]:
    """A relay that tells of this TURN server, which runs beside it."""
    made = make_https_certificate([ADDRESS], datetime.now(UTC), timedelta(days=1))
    (folder / "fullchain.pem").write_text(made.certificate_pem)
    (folder / "privkey.pem").write_text(made.private_key_pem)
    text = (ROOT / "deploy/turnserver.conf").read_text()
    text = text.replace("/etc/letsencrypt/live/relay.example", str(folder)).replace("CHANGE-ME", SECRET)
    text = text.replace("203.0.113.5", ADDRESS)
    (folder / "turnserver.conf").write_text(f"{text}listening-ip={ADDRESS}\nrelay-ip={ADDRESS}\nuserdb={folder}/db\n")
    settings = {
        "http.bind": '["127.0.0.1"]',
        "media.bind": f'["{ADDRESS}"]',
        "auth.keys": f'{{devkey = "{KEY}"}}',
        "ice.servers": f'[{{urls = ["{url}"], secret = "{SECRET}"}}]',
    }
    async with Relay(settings=settings) as relay:
        command = [program("turnserver"), "-c", str(folder / "turnserver.conf"), f"--pidfile={folder}/pid"]
        coturn = await asyncio.create_subprocess_exec(*command, env=environment(folder), cwd=folder)
        try:
            await until_it_listens(coturn)
            yield relay
        finally:
            if coturn.returncode is None:
                coturn.kill()
            await coturn.wait()


async def until_it_listens(coturn: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(30):
        for port in (3478, 5349):
            while True:
                assert coturn.returncode is None, "coturn has ended"
                try:
                    _, writer = await asyncio.open_connection(ADDRESS, port)
                except OSError:
                    await asyncio.sleep(0.05)
                    continue
                writer.close()
                break


def token(identity: str) -> str:
    return make_token("devkey", KEY, identity=identity, room="hall", expires_at=time.time() + 600)


async def told(relay: Relay, identity: str) -> RTCIceServer:
    """The TURN server, as an answer names it."""
    headers = {"Content-Type": "application/sdp", "Authorization": f"Bearer {token(identity)}"}
    url = f"{relay.url}/whep/hall"
    async with aiohttp.ClientSession() as http, http.post(url, data=OFFER, headers=headers) as answer:
        assert answer.status == 201, await answer.text()
        found = LINK.match(answer.headers["Link"])
    assert found, answer.headers["Link"]
    return RTCIceServer(found["url"], found["username"], found["credential"])


async def watched(relay: Relay, server: RTCIceServer | None) -> int:
    """Publishes and watches; returns how many pictures were seen, ten at the most."""
    servers = [server] if server is not None else []
    publisher = Publisher(f"{relay.url}/whip/hall", token("ann"), audio=False, ice_servers=servers)
    viewer = Viewer(f"{relay.url}/whep/hall", token("ben"), audio=False, ice_servers=servers)
    async with publisher, viewer:
        await publisher.open()
        await viewer.open()
        try:
            await viewer.until_frames(10, seconds=20 if server is not None else 5)
        except TimeoutError:
            return len(viewer.frames)
        return 10


@pytest.mark.usefixtures("no_udp")
@pytest.mark.parametrize("url", [f"turn:{ADDRESS}:3478?transport=tcp", f"turns:{ADDRESS}:5349?transport=tcp"])
async def test_a_picture_comes_through_coturn_where_no_udp_does(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The client trusts no other authority.
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "fullchain.pem"))
    async with serving(tmp_path, url) as relay:
        assert await watched(relay, None) == 0
        assert await watched(relay, await told(relay, "ann")) == 10


@pytest.mark.usefixtures("no_udp")
async def test_doctor_says_which_ways_are_left(tmp_path: Path) -> None:
    async with serving(tmp_path, f"turn:{ADDRESS}:3478?transport=tcp") as relay:
        _, text = await millrace("doctor", "--set", f'auth.keys={{devkey = "{KEY}"}}', "--url", relay.url)
    found = [line for line in text.splitlines() if "from here, " in line]
    assert found[0] == f"warn  from here, UDP: {ADDRESS}:{relay.media_port}: no answer within 3 s"
    assert found[1].startswith(f"ok    from here, TCP: {ADDRESS}:{relay.media_port} answers after ")
    assert found[2].startswith(f"ok    from here, TURN: turn:{ADDRESS}:3478?transport=tcp answers after ")
