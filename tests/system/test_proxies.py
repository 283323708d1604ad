"""The proxies of `deploy/`, as they stand there but for names, ports and certificates: clients publish, watch, restart
ICE and leave through them, on a host of its own and under a path.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urljoin

import aiohttp
import pytest

from millrace.master.start.x509 import make_certificate
from tests.clients.aiortc_client import Publisher, Viewer
from tests.system.posts import OFFER
from tests.system.relay_process import ROOT, Relay, free_port
from tests.system.unpacked import environment, program

SITE = {"own host": ("relay.example", ""), "path": ("site.example", "/media")}
SDP = {"Content-Type": "application/sdp"}


def nginx(folder: Path, relay: Relay, port: int) -> list[str]:
    """Its command. Both servers listen on one port here, and only on loopback."""
    text = (ROOT / "deploy/nginx.conf").read_text()
    text = text.replace("127.0.0.1:7880", f"127.0.0.1:{relay.http_port}")
    text = text.replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl").replace("    listen [::]:443 ssl;\n", "")
    text = re.sub(r"/etc/letsencrypt/live/[a-z.]+/", f"{folder}/", text)
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "main.conf").write_text(
        f"daemon off;\npid {folder}/pid;\nerror_log stderr;\nuser root;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temporary}{text}}}\n"
    )
    return [program("nginx"), "-p", str(folder), "-e", "stderr", "-c", str(folder / "main.conf")]


def caddy(folder: Path, relay: Relay, port: int) -> list[str]:
    """Its command, with our certificate in place of one that it would get from an authority."""
    text = (ROOT / "deploy/Caddyfile").read_text()
    text = text.replace("127.0.0.1:7880", f"127.0.0.1:{relay.http_port}")
    tls = f"\n\tbind 127.0.0.1\n\ttls {folder}/fullchain.pem {folder}/privkey.pem\n"
    text = re.sub(r"^(\w+\.example) \{\n", lambda found: f"{found[1]}:{port} {{{tls}", text, flags=re.MULTILINE)
    (folder / "Caddyfile").write_text(f"{{\n\tadmin off\n\tauto_https off\n\tstorage file_system {folder}\n}}\n{text}")
    return [program("caddy"), "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]


COMMANDS = {"nginx": nginx, "caddy": caddy}


class ToProxy(aiohttp.abc.AbstractResolver):
    """Has every name lead to the proxy."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[aiohttp.abc.ResolveResult]:
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}]

    async def close(self) -> None:
        """Holds nothing."""


def client() -> aiohttp.ClientSession:
    """Names lead to the proxy, and its certificate is taken as it is."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=ToProxy(), ssl=context))


@asynccontextmanager
async def behind(kind: str, site: str, folder: Path) -> AsyncIterator[tuple[Relay, str]]:
    """A relay with a proxy before it; gives the URL of the relay's root at the proxy."""
    host, path = SITE[site]
    made = make_certificate(datetime.now(UTC))
    (folder / "fullchain.pem").write_text(made.certificate_pem)
    (folder / "privkey.pem").write_text(made.private_key_pem)
    # A page of the proxy's name is another site's to an open server: those are for this machine only.
    settings = {"http.cors_origins": f'["https://{host}", "https://app.example"]', "http.public_path": f'"{path}"'}
    async with Relay(settings=settings) as relay:
        port = free_port(socket.SOCK_STREAM)
        proxy = await asyncio.create_subprocess_exec(*COMMANDS[kind](folder, relay, port), env=environment(folder))
        try:
            url = f"https://{host}:{port}{path}"
            await until_it_serves(url, proxy)
            yield relay, url
        finally:
            if proxy.returncode is None:
                proxy.terminate()
            await proxy.wait()


async def until_it_serves(url: str, proxy: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(30), client() as http:
        while True:
            assert proxy.returncode is None, "the proxy has ended"
            try:
                async with http.get(f"{url}/rooms") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("site", SITE)
@pytest.mark.parametrize("kind", COMMANDS)
async def test_a_session_is_opened_changed_and_ended_where_location_leads(kind: str, site: str, tmp_path: Path) -> None:
    async with behind(kind, site, tmp_path) as (_, url), client() as http:
        async with http.post(f"{url}/whep/hall", data=OFFER, headers=SDP) as answer:
            assert answer.status == 201, await answer.text()
            session = urljoin(str(answer.url), answer.headers["Location"])
            etag = answer.headers["ETag"]
        assert session.startswith(f"{url}/whep/hall/")
        credentials = "a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n"
        fragment = f"{credentials}m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n"
        headers = {"Content-Type": "application/trickle-ice-sdpfrag", "If-Match": "*"}
        async with http.patch(session, data=fragment, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            assert answer.headers["ETag"] != etag
        async with http.delete(session) as answer:
            assert answer.status == 200
        async with http.delete(session) as answer:
            assert answer.status == 404


@pytest.mark.parametrize("site", SITE)
@pytest.mark.parametrize("kind", COMMANDS)
async def test_a_page_of_another_site_may_ask_and_the_own_page_finds_its_files(
    kind: str, site: str, tmp_path: Path
) -> None:
    async with behind(kind, site, tmp_path) as (_, url), client() as http:
        asks = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
        async with http.options(f"{url}/whip/hall", headers=asks) as answer:
            assert answer.status == 204
            assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
        # Without the slash at the end, too.
        async with http.get(url) as answer:
            page, found = await answer.text(), str(answer.url)
        for link in re.findall(r'(?:src|href)="([^":]+)"', page):
            async with http.get(urljoin(found, link)) as answer:
                assert answer.status == 200, f"{link} of the page"


@pytest.mark.parametrize("kind", COMMANDS)
async def test_media_flows_between_clients_that_came_through_a_proxy(kind: str, tmp_path: Path) -> None:
    async with (
        behind(kind, "path", tmp_path) as (_, url),
        Publisher(f"{url}/whip/hall", audio=False) as publisher,
        Viewer(f"{url}/whep/hall", audio=False) as viewer,
    ):
        publisher.http = viewer.http = client
        await publisher.open()
        await viewer.open()
        await viewer.until_frames(10)
