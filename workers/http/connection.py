"""One connection of an HTTP client, and the answer to what is not HTTP. Owns what a stranger may send around a body,
and until when. It must never know a route. Read next: `workers/http/server.py`, which answers requests.

aiohttp bounds each field and their number, which multiplied are megabytes. Here their sum is bounded, and each part of
a connection's life has its own time:

    opened --------- head --------- body, answer --------- idle --------- head --------- ...
       request_seconds               (server.py)        idle_seconds   request_seconds
"""

import asyncio
import fcntl
import logging
import os
import socket
import struct
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import BadStatusLine, HttpProcessingError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import _ErrInfo

from millrace.workers.http.answers import SERVER, problem
from millrace.workers.http.refusals import Refusals

log = logging.getLogger("millrace.http")

MAX_HEAD_BYTES = 32 * 1024
"""Request line and fields together; of a chunked body likewise what is no data. nginx passes on as much (4 buffers of
8 KiB). Behind an access proxy, cookies and tokens of 16 KiB are usual.
"""
MAX_FIELDS = 256
"""Each costs some 300 bytes beside its text. Browsers and proxies send 20 to 60."""
PIECE_BYTES = 16 * 1024
"""As much is given to the parser at once, so that a head behind a body's end is counted from there on."""

READER_SECONDS = 5.0
"""For a client that has ended its side to acknowledge its answer: some retransmissions."""
LOOK_SECONDS = 0.02
"""Between two looks whether it has: no one waits meanwhile."""
TCP_INFO_BYTES = 216
"""As far as bytes_retrans in struct tcp_info (linux/tcp.h); Linux before 4.19 gives less."""
TCP_CLOSE = 7
"""The first byte of TCP_INFO after a reset (include/net/tcp_states.h)."""

_HEAD = "before a head's end"
_FIELDS_TOO_MANY = "Too many headers"


class Connection(web.RequestHandler):
    """Refuses what is not HTTP with a problem of ours, so that strangers fill no log and learn no library's name."""

    __slots__ = (
        "_around",
        "_body",
        "_has_ended",
        "_has_line",
        "_head_seconds",
        "_head_timer",
        "_refusals",
        "_waits",
        "is_awaiting_body",
        "source",
    )

    def __init__(
        self,
        manager: web.Server,
        refusals: Refusals | None,
        waits: "Callable[[Connection, bool], None]",
        loop: asyncio.AbstractEventLoop,
        head_seconds: float,
        **options: Any,
    ) -> None:
        """`head_seconds` bounds the time from the connection's start, or a head's first byte, to its last. `waits` is
        told when the connection begins to wait for its client, and when it no longer does.
        """
        super().__init__(
            manager,
            loop=loop,
            max_line_size=MAX_HEAD_BYTES,
            max_field_size=MAX_HEAD_BYTES,
            max_headers=MAX_FIELDS,
            **options,
        )
        self._refusals = refusals
        self._waits = waits
        self.is_awaiting_body = False
        """True while a handler reads a body that is not in."""
        self.source = ""
        """The client's IP address, or the proxy's; of IPv6 the network of 64 bits, which one client has for itself."""
        self._head_seconds = head_seconds
        self._head_timer: asyncio.TimerHandle | None = None
        self._around = 0
        """Bytes of the present head; after it, those around the body's data."""
        self._has_line = False
        """True when the present head's first line is in."""
        self._has_ended = False
        """True when the client has ended its side, and may still read."""
        self._body: StreamReader = EMPTY_PAYLOAD
        """Of the last request that came."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins to wait for the first head."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Ends the wait for a head."""
        self._stop_waiting()
        super().connection_lost(exc)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Keeps the connection for the answers to whole requests; else it closes. TLS has no such half."""
        is_waiting = self._waiter is not None and not self._waiter.done()
        is_due = self._request_count > 0 and not is_waiting and self._body.is_eof()
        self._has_ended = is_due and self.ssl_context is None
        return self._has_ended

    @contextmanager
    def awaiting_body(self) -> Iterator[None]:
        """While a handler reads a body."""
        self.is_awaiting_body = True
        self._waits(self, True)
        try:
            yield
        finally:
            self.is_awaiting_body = False
            self._waits(self, False)

    @property
    def is_last(self) -> bool:
        """True when nothing can come after the request that is being answered."""
        return self._has_ended and not self._messages

    def answered(self) -> socket.socket | None:
        """Returns a copy of the socket on which an answer was just sent, for `has_reader`; None without a client."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return None
        return socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))

    async def has_reader(self, answered: socket.socket) -> bool:
        """False when the client has closed the connection and not only its side of it: then it answers what was just
        sent by a reset, which may come before its end is seen here. A client that reads acknowledges it. Closes
        `answered`.
        """
        transport = self.transport
        deadline = self._loop.time() + READER_SECONDS
        with answered:
            while self._loop.time() < deadline:
                await asyncio.sleep(LOOK_SECONDS)
                info = answered.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
                if info[0] == TCP_CLOSE:
                    return _is_acknowledged(info)
                unread = int.from_bytes(fcntl.ioctl(answered, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
                if unread == 0 and (transport is None or transport.get_write_buffer_size() == 0):
                    return True
        return False

    def data_received(self, data: bytes) -> None:
        """Hands what came to the parser, as far as the sum is within its bounds."""
        while True:
            most = MAX_HEAD_BYTES - self._around if self._body.is_eof() else PIECE_BYTES
            piece = data[: min(PIECE_BYTES, most)]
            data = data[len(piece) :]
            self._take(piece)
            if not data or self._close or self.transport is None:
                return

    def _take(self, piece: bytes) -> None:
        requests, in_body, data_before = self._request_count, not self._body.is_eof(), self._body.total_bytes
        super().data_received(piece)
        if self._close:
            return
        if self._request_count > requests:
            self._refuse_other_versions(self._request_count - requests)
            # Several may have come: the body of the last one is still to be read.
            self._body = self._messages[-1][1]
            self._around, self._has_line = 0, False
            self._stop_waiting()
        elif in_body:
            self._around += len(piece) - (self._body.total_bytes - data_before)
            if self._body.is_eof():
                self._around = 0
            elif self._around > MAX_HEAD_BYTES and not self._reading_paused and self.transport is not None:
                # While it is paused, the parser itself holds what came.
                self.transport.abort()
        elif piece:
            self._around += len(piece)
            self._has_line = self._has_line or b"\n" in piece
            if self._around == MAX_HEAD_BYTES:
                self._refuse_head()
            elif self._head_timer is None:
                self._await_head()

    def _refuse_other_versions(self, requests: int) -> None:
        """Of so many last requests. The parser takes a request line without a version, as HTTP 0.9 had it, and 2.0."""
        for at in range(-requests, 0):
            message, body = self._messages[at]
            if not isinstance(message, _ErrInfo) and message.version.major != 1:
                error = BadStatusLine(f"HTTP/{message.version.major}")
                self._messages[at] = (_ErrInfo(status=400, exc=error, message=error.message), body)

    def _refuse_head(self) -> None:
        """Has the present head answered as the parser has its own errors answered. What still comes is dropped for
        `lingering_time`, as the rest of a body is: else the client would see a reset and no answer.
        """
        error = LineTooLong(_HEAD, str(MAX_HEAD_BYTES))
        rest = StreamReader(self, limit=0, loop=self._loop)
        self._messages.append((_ErrInfo(status=400, exc=error, message=_HEAD), rest))
        self._request_count += 1
        self._close = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _await_head(self) -> None:
        self._stop_waiting()
        self._head_timer = self._loop.call_later(self._head_seconds, self._end_head)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _end_head(self) -> None:
        self._head_timer = None
        if self._waiter is not None and not self._waiter.done():
            self.force_close()
        else:
            # A request before it is being answered.
            self.close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answers what is not HTTP, and what a defect of the library left unanswered."""
        if status >= 500:
            # A connection that is closed or cut in mid-body is no defect.
            if not isinstance(exc, ConnectionError):
                log.error("a connection failed", exc_info=exc)
            response = problem(500, "defect", "This is a defect of the server; its log has it.")
        else:
            response = self._refusal(exc)
            if self._refusals is not None:
                self._refusals.refused(request, response)
        response.headers["Server"] = SERVER
        response.force_close()
        return response

    def _refusal(self, exc: BaseException | None) -> web.Response:
        if isinstance(exc, LineTooLong) and not self._has_line:
            # RFC 9110 section 15.5.15.
            return problem(414, "uri-too-long", f"The request line and the fields may have {MAX_HEAD_BYTES} bytes.")
        if isinstance(exc, LineTooLong):
            # RFC 6585 section 5.
            detail = f"The request line and the fields, cookies among them, may have {MAX_HEAD_BYTES} bytes together."
            return problem(431, "fields-too-large", detail)
        if isinstance(exc, HttpProcessingError) and exc.message.startswith(_FIELDS_TOO_MANY):
            return problem(431, "too-many-fields", f"A request may have at most {MAX_FIELDS} fields.")
        return problem(400, "not-http", "The request is not HTTP as this server takes it.")


def _is_acknowledged(info: bytes) -> bool:
    """True when all that was sent had been taken before the reset: some clients read their answer and end like that."""
    if len(info) < TCP_INFO_BYTES:
        return False
    (acknowledged,), (sent, again) = struct.unpack_from("=Q", info, 120), struct.unpack_from("=QQ", info, 200)
    return bool(acknowledged >= sent - again)


def source_of(peer: object) -> str:
    """Returns `Connection.source` for a socket's peer; of a local socket nothing."""
    if not isinstance(peer, tuple):
        return ""
    address: str = peer[0]
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return address if parsed.version == 4 else str(int(parsed) >> 64)


def connection_of(request: web.BaseRequest) -> Connection:
    """Returns the connection on which a request came."""
    assert isinstance(request.protocol, Connection), "each server here makes these"
    return request.protocol
