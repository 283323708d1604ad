"""Janus with WHIP and WHEP in front, for the load generator: `python -m tests.load.servers.janus`. Owns the translation
to Janus's video room; must never carry media, so that only Janus's own work is measured. Read `janus_api.py` next, and
`../src/target.rs` for the contract.

In a video room the viewer does not offer, Janus does. So a WHEP offer is answered with Janus's own offer, turned into
an answer, and Janus is answered with its offer, too, given the viewer's ICE and DTLS parameters.
"""

import asyncio
import contextlib
import glob
import itertools
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from aiohttp import web

from tests.load.servers.janus_api import Janus, Json, Refused

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
START_SECONDS = 15.0
VIEWERS_OWN = ("a=ice-ufrag:", "a=ice-pwd:", "a=fingerprint:")
"""What of the viewer's offer goes to Janus, besides its candidates."""
SENDERS_OWN = ("a=ssrc", "a=msid:", "a=candidate:", "a=end-of-candidates", "a=setup:", *VIEWERS_OWN)
"""What of Janus's offer does not go back to it."""


@dataclass
class Front:
    """WHIP and WHEP, as requests to Janus."""

    janus: Janus
    desk: int
    """The handle that rooms are made with."""
    rooms: dict[str, int] = field(default_factory=dict)
    feeds: dict[str, int] = field(default_factory=dict)
    """Of each room, its publisher."""
    handles: dict[str, int] = field(default_factory=dict)
    numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def application(self) -> web.Application:
        """The routes."""
        application = web.Application()
        application.router.add_post("/whip/{room}", self.publish)
        application.router.add_post("/whep/{room}", self.watch)
        application.router.add_delete("/session/{session}", self.leave)
        return application

    async def publish(self, request: web.Request) -> web.Response:
        """WHIP."""
        room = request.match_info["room"]
        if room not in self.rooms:
            self.rooms[room] = next(self.numbers)
            body = {"request": "create", "room": self.rooms[room], "publishers": 8, "videocodec": "vp8", "bitrate": 0}
            await self.janus.message(self.desk, body)
        handle = await self.janus.attach()
        feed = next(self.numbers)
        body = {"request": "joinandconfigure", "ptype": "publisher", "room": self.rooms[room], "id": feed}
        offer = {"type": "offer", "sdp": await request.text()}
        said, jsep = await self.janus.message(handle, body, offer)
        if said.get("videoroom") == "joined" and jsep is not None:
            self.feeds[room] = feed
        return self._created(handle, answered(jsep)["sdp"])

    async def watch(self, request: web.Request) -> web.Response:
        """WHEP."""
        room, offer = request.match_info["room"], await request.text()
        if room not in self.feeds:
            return web.Response(status=404, text="nobody publishes in this room")
        handle = await self.janus.attach()
        streams = [{"feed": self.feeds[room]}]
        body = {"request": "join", "ptype": "subscriber", "room": self.rooms[room], "streams": streams}
        _, jsep = await self.janus.message(handle, body)
        theirs = answered(jsep)["sdp"]
        await self.janus.message(handle, {"request": "start"}, {"type": "answer", "sdp": as_viewer(theirs, offer)})
        return self._created(handle, theirs.replace("a=setup:actpass", "a=setup:passive"))

    async def leave(self, request: web.Request) -> web.Response:
        """Ends either."""
        handle = self.handles.pop(request.match_info["session"], None)
        if handle is None:
            return web.Response(status=404)
        await self.janus.detach(handle)
        return web.Response(status=200)

    def _created(self, handle: int, sdp: str) -> web.Response:
        session = secrets.token_hex(8)
        self.handles[session] = handle
        headers = {"Location": f"/session/{session}"}
        return web.Response(status=201, text=sdp, content_type="application/sdp", headers=headers)


def answered(jsep: Json | None) -> Json:
    """The session description, which must be there."""
    if jsep is None:
        raise Refused("an answer without a session description")
    return jsep


def as_viewer(offer: str, viewer: str) -> str:
    """Janus's offer as the viewer's answer to it."""
    lines = viewer.splitlines()
    own = [next(line for line in lines if line.startswith(name)) for name in VIEWERS_OWN]
    candidates = list(dict.fromkeys(line for line in lines if line.startswith("a=candidate:")))
    answer = []
    for line in offer.splitlines():
        if line.startswith(SENDERS_OWN):
            continue
        answer.append("a=recvonly" if line == "a=sendonly" else line)
        if line.startswith("c="):
            answer += [*own, "a=setup:active", *candidates]
    return "\r\n".join(answer) + "\r\n"


@web.middleware
async def say_why(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns Janus's refusals into answers."""
    try:
        return await handler(request)
    except (Refused, TimeoutError) as error:
        return web.Response(status=502, text=f"Janus: {error or 'no answer'}")


def configuration(folder: Path, port: int, address: str) -> None:
    """Only what is needed: the video room, a WebSocket, loopback. The rest is as Janus comes."""
    for kind, name in (("plugins", "libjanus_videoroom.so"), ("transports", "libjanus_websockets.so")):
        (folder / kind).mkdir()
        found = sorted(glob.glob(f"/usr/lib/*/janus/{kind}/{name}*"))
        if not found:
            raise SystemExit(f"{name} is not there: is the package janus installed?")
        (folder / kind / name).symlink_to(found[0])
    (folder / "janus.jcfg").write_text(
        f"""general: {{
    configs_folder = "{folder}"
    plugins_folder = "{folder}/plugins"
    transports_folder = "{folder}/transports"
    events_folder = "{folder}"
    loggers_folder = "{folder}"
    debug_level = 2
}}
media: {{ ipv6 = false }}
nat: {{ ice_enforce_list = "{address}" }}
"""
    )
    (folder / "janus.transport.websockets.jcfg").write_text(
        f'general: {{ json = "compact", ws = true, ws_port = {port}, ws_ip = "127.0.0.1", wss = false }}\n'
    )
    (folder / "janus.plugin.videoroom.jcfg").write_text("general: {}\n")


def own_address() -> str:
    """An address of this machine that is not loopback, which Janus does not use; nothing is sent to find it.

    Janus ties its sockets to that address's interface, so clients must be at the same one; what they send each other
    goes over loopback all the same.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # A documentation address (RFC 5737): any that is not local leads out.
        probe.connect(("203.0.113.1", 9))
        address: str = probe.getsockname()[0]
        return address


async def connect(http: aiohttp.ClientSession, port: int, server: "subprocess.Popen[bytes]") -> Janus:
    """Once Janus listens."""
    async with asyncio.timeout(START_SECONDS):
        while server.poll() is None:
            try:
                url = f"http://127.0.0.1:{port}/"
                return Janus(await http.ws_connect(url, protocols=("janus-protocol",), heartbeat=None))
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)
    raise SystemExit(f"Janus ended with {server.returncode}")


async def serve(port: int, address: str, server: "subprocess.Popen[bytes]") -> None:
    """Until standard input is closed."""
    async with aiohttp.ClientSession() as http:
        janus = await connect(http, port, server)
        await janus.open()
        front = Front(janus, await janus.attach())
        application = front.application()
        application.middlewares.append(say_why)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        base = f"http://127.0.0.1:{runner.addresses[0][1]}"
        urls = f"whip={base}/whip/{{room}} whep={base}/whep/{{room}}"
        print(f"ready name=janus {urls} pid={server.pid} bind={address}", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await runner.cleanup()
        await janus.close()


def main() -> None:
    """Starts Janus, and stops it, also when told to end by a signal."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    address = own_address()
    with tempfile.TemporaryDirectory(prefix="millrace-load-janus-") as name:
        configuration(Path(name), port, address)
        command = ["janus", "-F", name, "-C", f"{name}/janus.jcfg"]
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, start_new_session=True)
        try:
            with contextlib.suppress(KeyboardInterrupt):
                asyncio.run(serve(port, address, server))
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
