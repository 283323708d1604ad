"""Takes connections from listening sockets, never more than there is room for. Owns that bound, and who makes room; it
must never read a request. Read next: `workers/http/connection.py`, one connection.

An event loop's own server accepts all that the kernel has queued before it closes one connection, and does not count
those in a TLS handshake. Here a connection counts from its acceptance to its end, and while there is no room the next
ones wait in the kernel's queue.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from ssl import SSLContext
from typing import Any

from aiohttp import web

from millrace.workers.http.connection import Connection, source_of
from millrace.workers.http.refusals import Refusals

log = logging.getLogger("millrace.http")

Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

MAX_CONNECTIONS = 1024
"""For each server; one connection costs some 20 kB and a descriptor. At the limit one that makes no progress is cut."""
BACKLOG = 1024
"""Connections that wait to be accepted; the kernel caps it at net.core.somaxconn."""
ACCEPTS = 32
"""Connections that are accepted at once, before other work of the loop has its turn: some 2 ms."""
SHORTAGE_SECONDS = 0.1
"""Until the next attempt when the system had no descriptor or memory for a connection. No client waits longer than that
for one that came free.
"""
SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Nothing to do with the connection, which stays in the queue (accept(2))."""


class BoundedServer(web.Server):
    """Holds at most MAX_CONNECTIONS. At the limit a new connection takes the place of one that makes no progress: of
    the source address that has most of those, the one that has made none for the longest time. So connections that are
    only held open, handshakes and bodies that do not come, block no client of another address, and those that a proxy
    keeps and uses stay.
    """

    def __init__(
        self, handle: Handle, tls: SSLContext | None = None, handshake_seconds: float = 0.0, **options: Any
    ) -> None:
        """HTTPS with a context; a handshake may take so long."""
        super().__init__(handle, **options)
        self.refusals: Refusals | None = None
        self._secured: dict[str, Any] = {}
        if tls is not None:
            self._secured = {"ssl": tls, "ssl_handshake_timeout": handshake_seconds}
        self._open: set[Connection] = set()
        """From their acceptance to their end. aiohttp's own set has them until their last handler has ended, too."""
        self._opening: dict[Connection, socket.socket] = {}
        """Accepted, but not yet told that they are made: in a TLS handshake."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: dict[Connection, None] = {}
        """Connections without a request under way, or whose body is awaited, the longest first."""
        self._cut: set[Connection] = set()
        """Connections that end to make room, and have not yet."""
        self._paused: set[Listener] = set()
        self._is_short = False
        """True when the system had no descriptor or memory for the last connection."""

    def __call__(self) -> web.RequestHandler:
        """Returns a connection that is not made yet."""
        return Connection(self, self.refusals, self.waits, loop=asyncio.get_running_loop(), **self._kwargs)

    def listen(self, descriptor: int) -> "Listener":
        """Accepts on this listening socket, which is the listener's from now on and closed with it."""
        listener = socket.socket(fileno=descriptor)
        listener.setblocking(False)
        listener.listen(BACKLOG)
        return Listener(listener, self)

    def open_connections(self) -> set[web.RequestHandler]:
        """All, those in their handshake among them."""
        return {*self.connections, *self._open}

    def accept(self, listener: "Listener") -> None:
        """Takes connections from this listener, on which at least one waits, as far as there is room."""
        if not self._has_room():
            if len(self._open) - len(self._cut) >= MAX_CONNECTIONS:
                self._make_room()
            listener.pause()
            self._paused.add(listener)
            return
        for _ in range(ACCEPTS):
            if not self._has_room():
                # Whether one more waits is not known.
                return
            try:
                accepted, peer = listener.socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in SHORTAGES:
                    self._fall_short(listener, error)
                    return
                # The client has gone meanwhile, or its network is down (accept(2)): the next one is another.
                continue
            self._is_short = False
            accepted.setblocking(False)
            self._take(accepted, peer)

    def waits(self, connection: Connection, is_waiting: bool) -> None:
        """Notes that a connection waits for its client, or no longer does."""
        if is_waiting and connection.transport is not None:
            self._waiting[connection] = None
            self._resume()
        else:
            self._waiting.pop(connection, None)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Notes that a connection, and its handshake, has come about."""
        super().connection_made(handler, transport)
        assert isinstance(handler, Connection), "each server here makes these"
        self._opening.pop(handler, None)
        self.waits(handler, True)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """Notes that a connection has ended."""
        super().connection_lost(handler, exc)
        assert isinstance(handler, Connection), "each server here makes these"
        self._ended(handler)

    def cut_handshakes(self) -> None:
        """Ends all connections that are not made yet."""
        for connection in list(self._opening):
            self._end(connection)

    def _take(self, accepted: socket.socket, peer: object) -> None:
        connection = self()
        assert isinstance(connection, Connection), "just made"
        connection.source = source_of(peer)
        self._open.add(connection)
        self._opening[connection] = accepted
        self._waiting[connection] = None
        task = asyncio.ensure_future(self._connect(connection, accepted))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, connection: Connection, accepted: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(lambda: connection, accepted, **self._secured)
        except OSError:
            # A handshake that failed, took too long or was cut: strangers fill no log.
            self._ended(connection)
        except Exception:
            log.exception("a connection failed")
            accepted.close()
            self._ended(connection)

    def _has_room(self) -> bool:
        return len(self._open) < MAX_CONNECTIONS

    def _make_room(self) -> None:
        """Cuts a connection that makes no progress, if there is one. Its end is heard of later."""
        by_source: dict[str, list[Connection]] = {}
        for connection in self._waiting:
            by_source.setdefault(connection.source, []).append(connection)
        if by_source:
            oldest = max(by_source.values(), key=len)[0]
            self._waiting.pop(oldest)
            self._cut.add(oldest)
            self._end(oldest)

    def _end(self, connection: Connection) -> None:
        if (opening := self._opening.get(connection)) is not None:
            # Its transport belongs to the handshake, which ends here as if the client had left.
            with suppress(OSError):
                opening.shutdown(socket.SHUT_RDWR)
        elif connection.transport is not None:
            connection.transport.abort()

    def _ended(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._opening.pop(connection, None)
        self._waiting.pop(connection, None)
        self._cut.discard(connection)
        self._resume()

    def _resume(self) -> None:
        while self._paused:
            self._paused.pop().resume()

    def _fall_short(self, listener: "Listener", error: OSError) -> None:
        if not self._is_short:
            self._is_short = True
            log.warning("connections wait: the system has no room for another", extra={"error": error.strerror})
        self._make_room()
        listener.pause()
        asyncio.get_running_loop().call_later(SHORTAGE_SECONDS, listener.resume)


class Listener:
    """One listening socket, which takes connections while it is not paused."""

    def __init__(self, listener: socket.socket, server: BoundedServer) -> None:
        self.socket = listener
        self._server = server
        self._is_accepting = False
        self.resume()

    def pause(self) -> None:
        """Leaves connections in the kernel's queue."""
        if self._is_accepting:
            asyncio.get_running_loop().remove_reader(self.socket)
            self._is_accepting = False

    def resume(self) -> None:
        """Takes connections again, if it is not closed."""
        if not self._is_accepting and self.socket.fileno() >= 0:
            asyncio.get_running_loop().add_reader(self.socket, self._server.accept, self)
            self._is_accepting = True

    def close(self) -> None:
        """Takes no more connections; open ones go on."""
        self.pause()
        self.socket.close()
