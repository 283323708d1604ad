"""Janus's API over one WebSocket: requests, and the events that answer some of them. Owns the connection and its
session; must never know WHIP or WHEP. Read `janus.py` next.
"""

import asyncio
import contextlib
import itertools
from dataclasses import dataclass, field
from typing import Any

import aiohttp

KEEP_ALIVE_SECONDS = 20.0
"""Janus forgets a session after 60 s without a word."""
ANSWER_SECONDS = 15.0
PLUGIN = "janus.plugin.videoroom"

Json = dict[str, Any]


class Refused(Exception):
    """Janus said no, in its own words."""


@dataclass
class Janus:
    """One session with Janus; handles are attached to it."""

    socket: aiohttp.ClientWebSocketResponse
    session: int = 0
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    _waiting: dict[str, "asyncio.Future[Json]"] = field(default_factory=dict)
    _tasks: list["asyncio.Task[None]"] = field(default_factory=list)

    async def open(self) -> None:
        """Makes the session and keeps it alive."""
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._keep_alive())]
        self.session = (await self._ask("create"))["data"]["id"]

    async def close(self) -> None:
        """Ends the tasks; the session goes with the connection."""
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self.socket.close()

    async def attach(self) -> int:
        """A new handle of the video room plugin."""
        reply = await self._ask("attach", plugin=PLUGIN)
        handle: int = reply["data"]["id"]
        return handle

    async def detach(self, handle: int) -> None:
        """Ends a handle and its call."""
        await self._ask("detach", handle_id=handle)

    async def message(self, handle: int, body: Json, jsep: Json | None = None) -> tuple[Json, Json | None]:
        """One request to the plugin, and its answer: what it says, and its session description."""
        more: Json = {} if jsep is None else {"jsep": jsep}
        reply = await self._ask("message", handle_id=handle, body=body, **more)
        said: Json = reply["plugindata"]["data"]
        if "error" in said:
            raise Refused(said["error"])
        return said, reply.get("jsep")

    async def _ask(self, what: str, **fields: Any) -> Json:
        transaction = str(next(self._numbers))
        request = {"janus": what, "transaction": transaction, **fields}
        if what != "create":
            request["session_id"] = self.session
        future = asyncio.get_running_loop().create_future()
        self._waiting[transaction] = future
        try:
            await self.socket.send_json(request)
            async with asyncio.timeout(ANSWER_SECONDS):
                reply: Json = await future
        finally:
            del self._waiting[transaction]
        if reply["janus"] == "error":
            raise Refused(reply["error"]["reason"])
        return reply

    async def _listen(self) -> None:
        async for message in self.socket:
            reply = message.json()
            # An `ack` only says that an event will follow, with the same transaction.
            future = self._waiting.get(reply.get("transaction", ""))
            if future is not None and not future.done() and reply["janus"] != "ack":
                future.set_result(reply)

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(KEEP_ALIVE_SECONDS)
            await self.socket.send_json(
                {"janus": "keepalive", "session_id": self.session, "transaction": f"alive-{next(self._numbers)}"}
            )
