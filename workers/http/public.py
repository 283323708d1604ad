"""The public routes: WHIP (RFC 9725), WHEP (draft-ietf-wish-whep), the list of rooms, the demo page and the player.
Turns requests into inputs of control. It must never decide anything about a room or a session. Read next:
`relay/control.py`, which does.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from millrace.relay.contract.effects import Reply
from millrace.relay.contract.inputs import Deleted, Offered, Patched, RoomsListed
from millrace.relay.contract.protocol import Protocol
from millrace.workers.http.answers import from_reply, method_not_allowed, problem
from millrace.workers.http.forwarded import client_address
from millrace.workers.http.origins import Cors, Guard, named_host
from millrace.workers.http.page import PLAYER, Page
from millrace.workers.http.server import Deadlines, bearer_token, header, own_address, path_segments, read_body
from millrace.workers.pending import MakeRequest

Ask = Callable[[MakeRequest], Awaitable[Reply]]

SDP = "application/sdp"
FRAGMENT = "application/trickle-ice-sdpfrag"
ENDPOINT_METHODS = "GET, HEAD, POST, OPTIONS"
SESSION_METHODS = "GET, HEAD, PATCH, DELETE, OPTIONS"


@dataclass(frozen=True, slots=True)
class PublicRoutes:
    """Answers one public request."""

    ask: Ask
    page: Page
    cors: Cors
    deadlines: Deadlines
    sdp_bytes: int
    """The longest body of an offer or a fragment."""
    guard: Guard
    """Tells other sites' pages from ours, for rules that admit a client by its address."""
    public_path: str = ""
    """As in the configuration: it may stand before each path."""
    trusted_proxies: tuple[str, ...] = ()
    """As in the configuration."""

    async def __call__(self, request: web.BaseRequest) -> web.Response:
        """Answers a request, whatever its path."""
        segments = path_segments(request)
        prefix = tuple(self.public_path.split("/")[1:])
        if prefix and segments[: len(prefix)] == prefix:
            # The proxy before us has not stripped it.
            segments = segments[len(prefix) :]
            if not segments and not request.path.endswith("/"):
                # Else the page's own links would lead out of the prefix.
                return web.Response(status=308, headers={"Location": f"{self.public_path}/"})
        match segments:
            case ("whip" | "whep" as protocol, room):
                return await self._endpoint(request, Protocol(protocol), room)
            case ("whip" | "whep", _, session):
                return await self._session(request, session)
            case ("rooms",):
                return await self._rooms(request)
            case ("watch", _) if self.page.has(PLAYER):
                if request.path.endswith("/"):
                    # Else the player's own links would lead one folder too low.
                    room_part = request.rel_url.raw_path.split("/")[-2]
                    return web.Response(status=308, headers={"Location": f"../{room_part}"})
                return self.page.respond(request, PLAYER)
            case segments if segments != PLAYER and self.page.has(segments):
                return self.page.respond(request, segments)
        return problem(404, "no-such-page", "There is nothing here.")

    async def _endpoint(self, request: web.BaseRequest, protocol: Protocol, room: str) -> web.Response:
        if request.method == "OPTIONS":
            return self._options(request, ENDPOINT_METHODS, {"Accept-Post": SDP})
        if request.method in ("GET", "HEAD"):
            # RFC 9725 section 4 wants success and no content. In WHEP the type tells players what this URL is.
            is_whep = protocol is Protocol.WHEP
            return web.Response(status=200, headers={"Content-Type": SDP}) if is_whep else web.Response(status=204)
        if request.method != "POST":
            return method_not_allowed(ENDPOINT_METHODS)
        sdp = await read_body(request, SDP, self.sdp_bytes, self.deadlines)
        token = bearer_token(request)
        participant = request.rel_url.query.get("participant")
        max_height = request.rel_url.query.get("max-height")
        address, host, origin = (
            client_address(request, self.trusted_proxies),
            named_host(request.raw_path, request.headers.get("Host")),
            request.headers.get("Origin"),
        )
        is_other_site = self.guard.is_other_site(host, origin)
        sent_to = own_address(request)
        reply = await self.ask(
            lambda number: Offered(
                number, protocol, room, token, sdp, participant, address, is_other_site, sent_to, max_height
            )
        )
        answer = from_reply(reply)
        if reply.status == 201:
            session = answer.headers["Location"].rpartition("/")[2]
            # Whoever does not hear of its session cannot end it.
            answer.undo = lambda: self.ask(lambda number: Deleted(number, session, token))
        return answer

    async def _session(self, request: web.BaseRequest, session: str) -> web.Response:
        token = bearer_token(request)
        if request.method == "OPTIONS":
            return self._options(request, SESSION_METHODS, {"Accept-Patch": FRAGMENT})
        if request.method == "DELETE":
            return from_reply(await self.ask(lambda number: Deleted(number, session, token)))
        if request.method in ("GET", "HEAD"):
            return web.Response(status=204)
        if request.method != "PATCH":
            return method_not_allowed(SESSION_METHODS)
        fragment = await read_body(request, FRAGMENT, self.sdp_bytes, self.deadlines)
        if_match = header(request, "If-Match")
        sent_to = own_address(request)
        return from_reply(await self.ask(lambda number: Patched(number, session, token, if_match, fragment, sent_to)))

    async def _rooms(self, request: web.BaseRequest) -> web.Response:
        if request.method == "OPTIONS":
            return self._options(request, "GET, HEAD, OPTIONS", {})
        if request.method not in ("GET", "HEAD"):
            return method_not_allowed("GET, HEAD, OPTIONS")
        token, address = bearer_token(request), client_address(request, self.trusted_proxies)
        return from_reply(await self.ask(lambda number: RoomsListed(number, token, address)))

    def _options(self, request: web.BaseRequest, methods: str, headers: dict[str, str]) -> web.Response:
        preflight = self.cors.preflight(request.headers.get("Origin"), methods)
        return web.Response(status=204, headers={"Allow": methods} | headers | preflight)
