"""The administration routes: metrics, health, rooms and sessions. It asks for no token, which is why it listens on
loopback, and must never be reachable through the public listeners. Read next: `workers/metrics.py`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from relay.effects import Deleted, RoomDeleted, RoomsAsked, SessionAsked
from workers.answers import from_reply, method_not_allowed, problem, respond
from workers.http import path_segments
from workers.public import Ask

TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class AdminRoutes:
    """Answers one request of an operator or of a scraper."""

    ask: Ask
    metrics: Callable[[], Awaitable[tuple[bytes, str]]]
    """The text and its content type."""
    not_ready: Callable[[], str | None]
    """Why the server as a whole cannot serve, or None when it can."""

    async def __call__(self, request: web.BaseRequest) -> web.Response:
        """Any request whatever."""
        match path_segments(request):
            case ("metrics",) if _reads(request):
                body, content_type = await self.metrics()
                return respond(200, body, content_type)
            case ("healthz",) if _reads(request):
                return respond(200, b"ok\n", TEXT)
            case ("readyz",) if _reads(request):
                reason = self.not_ready()
                return (
                    problem(503, "not-ready", reason)
                    if reason
                    else respond(200, b"ready\n", "text/plain; charset=utf-8")
                )
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
            case ("metrics" | "healthz" | "readyz" | "rooms",):
                return method_not_allowed("GET, HEAD")
            case ("rooms" | "sessions", _):
                return method_not_allowed("GET, HEAD, DELETE")
        return problem(404, "no-such-page", "There is nothing here.")


def _reads(request: web.BaseRequest) -> bool:
    return request.method in ("GET", "HEAD")
