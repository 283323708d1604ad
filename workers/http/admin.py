"""The administration routes: metrics, health, rooms, sessions and slots. They ask for no token and so listen on
loopback. They must never be reachable through the public listeners. Read next: `relay/control.py`, which answers most
of them.
"""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import web

from millrace.relay.contract.inputs import Deleted, MoveAsked, RoomDeleted, RoomsAsked, SessionAsked
from millrace.workers.http.answers import from_reply, method_not_allowed, problem, respond
from millrace.workers.http.public import Ask
from millrace.workers.http.server import path_segments

TEXT = "text/plain; charset=utf-8"


class Slots(Protocol):
    """What an operator can see and change of slots."""

    def view(self) -> list[dict[str, Any]]:
        """Returns every slot that ever had a worker, as plain values."""

    def close(self, slot: int, is_closed: bool) -> str | None:
        """Drains a slot, or takes that back. Returns the reason when it refuses."""


@dataclass(frozen=True, slots=True)
class AdminRoutes:
    """Answers one request of an operator or of a scraper."""

    ask: Ask
    metrics: Callable[[], Awaitable[tuple[bytes, str]]]
    """Returns the text and its content type."""
    not_ready: Callable[[bool], str | None]
    """Called with False: returns why no worker takes new sessions, or None when one does. With True: returns why any
    one of the workers does not serve.
    """
    slots: Slots

    async def __call__(self, request: web.BaseRequest) -> web.Response:
        """Answers a request, whatever its path."""
        match path_segments(request):
            case ("metrics",) if _reads(request):
                body, content_type = await self.metrics()
                return respond(200, body, content_type)
            case ("healthz",) if _reads(request):
                return respond(200, b"ok\n", TEXT)
            case ("readyz",) if _reads(request):
                reason = self.not_ready("all" in request.query)
                return problem(503, "not-ready", reason) if reason else respond(200, b"ready\n", TEXT)
            case ("rooms",) if _reads(request):
                return from_reply(await self.ask(RoomsAsked))
            case ("rooms", room) if _reads(request):
                return from_reply(await self.ask(lambda number: RoomsAsked(number, room)))
            case ("rooms", room) if request.method == "DELETE":
                return from_reply(await self.ask(lambda number: RoomDeleted(number, room)))
            case ("sessions", session) if _reads(request):
                return from_reply(await self.ask(lambda number: SessionAsked(number, session)))
            case ("sessions", session) if request.method == "DELETE":
                return from_reply(await self.ask(lambda number: Deleted(number, session, None, by_admin=True)))
            case ("sessions", session, "move") if request.method == "POST":
                said = request.query.get("slot", "")
                slot = _number(said)
                if slot is None:
                    return problem(400, "slot", f"Say which slot, such as ?slot=1; found ?slot={said[:80]}")
                return from_reply(await self.ask(lambda number: MoveAsked(number, session, slot)))
            case ("slots",) if _reads(request):
                return respond(200, json.dumps(self.slots.view()).encode(), "application/json")
            case ("slots", text, "drain") if request.method in ("POST", "DELETE"):
                return self._drain(_number(text), request.method == "POST")
            case ("sessions", _, "move"):
                return method_not_allowed("POST")
            case ("slots", _, "drain"):
                return method_not_allowed("POST, DELETE")
            case ("metrics" | "healthz" | "readyz" | "rooms" | "slots",):
                return method_not_allowed("GET, HEAD")
            case ("rooms" | "sessions", _):
                return method_not_allowed("GET, HEAD, DELETE")
        return problem(404, "no-such-page", "There is nothing here.")

    def _drain(self, slot: int | None, is_closed: bool) -> web.Response:
        if slot is None or (refusal := self.slots.close(slot, is_closed)) == "no-slot":
            return problem(404, "no-slot", "There is no such slot, or it never had a worker.")
        if refusal:
            return problem(409, refusal, "It is the last slot that takes sessions.")
        (view,) = [view for view in self.slots.view() if view["slot"] == slot]
        return respond(200, json.dumps(view).encode(), "application/json")


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 4 else None


def _reads(request: web.BaseRequest) -> bool:
    return request.method in ("GET", "HEAD")
