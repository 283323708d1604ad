"""An HTTP server on listeners that the master made. Owns its bounds, deadlines and errors, the same for the public and
the administration side. It must never know a route. Read next: `workers/http/public.py`, the public routes.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ssl import SSLContext
from urllib.parse import unquote

from aiohttp import web

from millrace.workers.http.accepting import BoundedServer, Listener
from millrace.workers.http.answers import SERVER, Answer, Refused, problem
from millrace.workers.http.connection import Connection, connection_of
from millrace.workers.http.origins import Cors, Guard, named_host
from millrace.workers.http.refusals import Refusals

log = logging.getLogger("millrace.http")

Routes = Callable[[web.BaseRequest], Awaitable[web.Response]]

MAX_REQUESTS = 256
"""Under way at once, those that wait for their body left out. Control answers in well under a millisecond, so these are
requests that were passed on. At the limit a new request gets 503.
"""
IDLE_SECONDS = 2.0
"""For a kept-alive connection to be used once more before a worker that releases its sessions closes it. A request that
crosses our closing fails, and this is longer than a client usually stands still. No client waits meanwhile."""
ARRIVAL_SECONDS = 0.5
"""For the requests on the connections that came last. Newer connections wait for the successor meanwhile."""
LOOK_SECONDS = 0.01
"""Between two checks whether connections are closed: a fraction of what a successor takes to start."""
LINGER_SECONDS = 1.0
"""How long the rest of a refused body is read and dropped, so that the client sees the refusal and not a reset."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long clients may take, also those that are slow on purpose."""

    request_seconds: float
    """For the headers, then for the body, then for the client to take the answer; then it is cut."""
    idle_seconds: float
    """For a connection between two requests; then it is closed."""


class HttpServer:
    """Serves `routes` on listening sockets."""

    def __init__(
        self,
        routes: Routes,
        deadlines: Deadlines,
        max_requests: int = MAX_REQUESTS,
        guard: Guard | None = None,
        cors: Cors | None = None,
    ) -> None:
        self._routes = routes
        self._deadlines = deadlines
        self._guard = guard
        self._cors = cors
        self.refusals: Refusals | None = None
        """Is told of each refused request; set before the start."""
        self._max_requests = max_requests
        self._watching: set[asyncio.Future[None]] = set()
        """Answers of which it is not yet known whether they were read."""
        self._busy: set[Connection] = set()
        """Connections with a request under way."""
        self._is_releasing = False
        self._is_closed = False
        """True when no listener is to be served any more."""
        self._listeners: list[Listener] = []
        self._borrowed: dict[int, Listener] = {}
        """By descriptor: on listeners of slots that are down."""
        self._web: BoundedServer | None = None

    async def start(self, sockets: Sequence[int], tls: SSLContext | None = None) -> None:
        """Serves on these listening sockets, whose descriptors stay open; HTTPS with a context, else HTTP."""
        self._web = BoundedServer(
            self._handle,
            tls,
            self._deadlines.request_seconds,
            access_log=None,
            head_seconds=self._deadlines.request_seconds,
            keepalive_timeout=self._deadlines.idle_seconds,
            lingering_time=LINGER_SECONDS,
            # A compressed body could grow a thousandfold; `read_body` refuses it.
            auto_decompress=False,
        )
        self._web.refusals = self.refusals
        self._listeners = [self._listen(descriptor) for descriptor in sockets]

    def borrow(self, sockets: frozenset[int]) -> None:
        """Serves on these listening sockets of other slots, too, and no longer on those that are not among them."""
        for descriptor in self._borrowed.keys() - sockets:
            self._borrowed.pop(descriptor).close()
        for descriptor in sockets - self._borrowed.keys():
            if not self._is_closed:
                self._borrowed[descriptor] = self._listen(descriptor)

    def _listen(self, descriptor: int) -> Listener:
        assert self._web is not None, "started"
        # A copy, which is closed at the end. The descriptor itself stays open for the next master.
        return self._web.listen(os.dup(descriptor))

    async def release(self, seconds: float, listening: float = 0) -> None:
        """Leaves the listeners to a successor and fails no request: each connection is closed after its next answer, or
        when no request comes on it. Requests under way may take `seconds`. Without a successor, connections that the
        kernel has begun here have `listening` seconds to arrive.
        """
        self._is_releasing = True
        await asyncio.sleep(listening)
        # New connections are still taken meanwhile, as they would have to wait for the successor.
        before = self._connections()
        await self._until_closed(before, IDLE_SECONDS)
        self._close_listeners()
        # On the connections that came last, a request is on its way.
        await self._until_closed(self._connections() - before, ARRIVAL_SECONDS)
        await self.stop(seconds)

    async def stop(self, seconds: float) -> None:
        """Takes no more requests, and waits for those under way for at most `seconds`."""
        self._close_listeners()
        if self._web is not None:
            self._web.cut_handshakes()
            self._web.pre_shutdown()
            await self._web.shutdown(seconds)

    def _close_listeners(self) -> None:
        self._is_closed = True
        for listener in (*self._listeners, *self._borrowed.values()):
            listener.close()

    def _connections(self) -> set[web.RequestHandler]:
        return self._web.open_connections() if self._web is not None else set()

    async def _until_closed(self, connections: set[web.RequestHandler], seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while connections & self._connections():
                    await asyncio.sleep(LOOK_SECONDS)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = connection_of(request)
        assert self._web is not None, "it is the one that asks"
        self._web.waits(connection, False)
        try:
            return await self._answer(request)
        finally:
            self._web.waits(connection, True)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if not self._has_room():
            response = problem(503, "too-many-requests-at-once", "Too many requests are under way here.")
        else:
            connection = connection_of(request)
            self._busy.add(connection)
            try:
                response = await self._respond(request)
            finally:
                self._busy.discard(connection)
        response.headers["Server"] = SERVER
        if self.refusals is not None and response.status >= 400:
            self.refusals.refused(request, response)
        if self._cors is not None:
            # On refusals, too: a page that may not read an answer sees a network error.
            response.headers.update(self._cors.headers(request.headers.get("Origin")))
        connection = connection_of(request)
        is_unread = response.status == 408 or (response.status >= 400 and request.can_read_body)
        if self._is_releasing or connection.is_last or is_unread:
            response.force_close()
        undo = response.undo if isinstance(response, Answer) else None
        is_sent = await self._send(request, response)
        if undo is not None:
            answered = connection.answered() if is_sent else None
            watching = asyncio.ensure_future(_undo_unread(connection, answered, undo))
            self._watching.add(watching)
            watching.add_done_callback(self._watching.discard)
            if connection.is_last:
                # It closes next. Otherwise the client's next request must not wait.
                await watching
        return response

    async def _send(self, request: web.BaseRequest, response: web.Response) -> bool:
        """Returns False when the client has gone, or does not take the answer."""
        try:
            async with asyncio.timeout(self._deadlines.request_seconds):
                await response.prepare(request)
                await response.write_eof()
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
            return False
        except ConnectionError:
            return False
        return True

    def _has_room(self) -> bool:
        """True when one more request may go on. Those that wait for their body do not count: a stranger can have as
        many as there are connections, at the cost of a line each, and no token has been checked.
        """
        if len(self._busy) < self._max_requests:
            return True
        return sum(not connection.is_awaiting_body for connection in self._busy) < self._max_requests

    async def _respond(self, request: web.BaseRequest) -> web.Response:
        if len(request.headers.getall("Origin", ())) > 1:
            # Which page is it? RFC 6454 section 7.3 allows one.
            return problem(400, "several-origins", "A request has at most one Origin.")
        if self._guard is not None:
            host = named_host(request.raw_path, request.headers.get("Host"))
            refusal = self._guard.refusal(host, request.headers.get("Origin"))
            if refusal is not None:
                return refusal
        try:
            return await self._routes(request)
        except Refused as refused:
            return refused.response
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception:
            # A bug costs this one request only, and the answer gives no detail of it.
            log.exception("a request failed")
            return problem(500, "defect", "This is a defect of the server; its log has it.")


async def _undo_unread(
    connection: Connection, answered: socket.socket | None, undo: Callable[[], Awaitable[object]]
) -> None:
    if answered is None or not await connection.has_reader(answered):
        await undo()


def path_segments(request: web.BaseRequest) -> tuple[str, ...]:
    """Returns the path's decoded segments. A `%2F` stays inside its segment, and a trailing slash is no segment."""
    raw = request.rel_url.raw_path.removeprefix("/").removesuffix("/")
    if not raw:
        return ()
    try:
        return tuple(unquote(segment, errors="strict") for segment in raw.split("/"))
    except UnicodeDecodeError:
        raise Refused(400, "path-not-utf-8", "The path is not UTF-8.") from None


def header(request: web.BaseRequest, name: str) -> str | None:
    """Returns a field's value with `?` for each character that is not ASCII: no valid value here has any, and msgpack
    does not pack a lone surrogate.
    """
    value = request.headers.get(name)
    return None if value is None else value.encode("ascii", "replace").decode("ascii")


def bearer_token(request: web.BaseRequest) -> str | None:
    """Returns the token of `Authorization: Bearer` (RFC 6750 section 2.1); None without one, or with another scheme."""
    scheme, _, token = (header(request, "Authorization") or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def own_address(request: web.BaseRequest) -> str | None:
    """Returns the address of ours to which the request was sent, which a proxy before us may have chosen."""
    name = request.transport.get_extra_info("sockname") if request.transport is not None else None
    return name[0] if isinstance(name, tuple) else None


async def read_body(request: web.BaseRequest, content_type: str, limit: int, deadlines: Deadlines) -> str:
    """Returns the body as text. A wrong type or announced length is refused before a byte is read, a longer body where
    it passes the limit. Raises Refused.
    """
    if request.content_type != content_type:
        raise Refused(415, "content-type", f"The body must be {content_type}.", {"Accept": content_type})
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Refused(415, "content-encoding", "The body must not be coded.", {"Accept-Encoding": "identity"})
    if (request.content_length or 0) > limit:
        raise Refused(413, "body-too-large", f"The body may have at most {limit} bytes.")
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    body = bytearray()
    try:
        with connection_of(request).awaiting_body():
            async with asyncio.timeout(deadlines.request_seconds):
                async for chunk in request.content.iter_any():
                    body += chunk
                    if len(body) > limit:
                        raise Refused(413, "body-too-large", f"The body may have at most {limit} bytes.")
    except TimeoutError:
        raise Refused(408, "body-too-slow", "The body did not come in time.") from None
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise Refused(400, "body-not-utf-8", "The body is not UTF-8.") from None
