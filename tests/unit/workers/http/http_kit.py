"""A running HTTP server, a client of it, and control in its place."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aiohttp
import pytest

from millrace.relay.contract.effects import Reply
from millrace.relay.contract.ids import RequestId
from millrace.relay.contract.inputs import Input
from millrace.workers.http.origins import Cors, Guard
from millrace.workers.http.page import Page
from millrace.workers.http.public import PublicRoutes
from millrace.workers.http.server import Deadlines, HttpServer, Routes
from millrace.workers.pending import MakeRequest

SDP = {"Content-Type": "application/sdp"}


CREATED = Reply(RequestId(0), 201, (("Location", "/whip/hall/00.abc"), ("Link", "<a>"), ("Link", "<b>")), b"v=0")


FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}


@dataclass
class Control:
    """Answers everything with one reply and keeps what it was asked."""

    reply: Reply = CREATED
    asked: list[Input] = field(default_factory=list)
    hold: asyncio.Event | None = None
    broken: bool = False

    async def ask(self, make: MakeRequest) -> Reply:
        self.asked.append(make(RequestId(0)))
        if self.broken:
            raise RuntimeError("secret detail")
        if self.hold is not None:
            await self.hold.wait()
        return self.reply


@dataclass
class Site:
    """A running server and a client of it."""

    url: str
    port: int
    control: Control
    client: aiohttp.ClientSession

    async def raw(self, *parts: bytes, pause: float = 0.0) -> bytes:
        """What comes back for bytes sent as they are, until the server closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        for part in parts:
            writer.write(part)
            await asyncio.sleep(pause)
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        return answer


def listen() -> tuple[int, int]:
    listener = socket.create_server(("127.0.0.1", 0))
    port: int = listener.getsockname()[1]
    return listener.detach(), port


async def serve(routes: Routes, control: Control, deadlines: Deadlines, requests: int) -> AsyncIterator[Site]:
    server = HttpServer(routes, deadlines, requests, cors=routes.cors if isinstance(routes, PublicRoutes) else None)
    descriptor, port = listen()
    await server.start([descriptor])
    async with aiohttp.ClientSession() as client:
        yield Site(f"http://127.0.0.1:{port}", port, control, client)
    await server.stop(1)
    # Still open, as it was given; its copy is not.
    os.close(descriptor)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


def public(
    control: Control,
    page: Page,
    origins: tuple[str, ...] = ("*",),
    seconds: float = 5,
    trusted: tuple[str, ...] = (),
) -> PublicRoutes:
    guard, cors = Guard(origins, checks_host=False), Cors(origins, is_open=False)
    return PublicRoutes(control.ask, page, cors, Deadlines(seconds, 60), 1000, guard, trusted_proxies=trusted)
