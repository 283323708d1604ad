"""One connection of an HTTP client, and the answer to what is not HTTP. Owns what a stranger can send before a request
is whole; must never know a route. Read next: `workers/http/server.py`, which answers requests.
"""

import asyncio
import logging
import math
from typing import Any

from aiohttp import web

from millrace.workers.http.answers import SERVER, problem
from millrace.workers.http.refusals import Refusals

log = logging.getLogger("millrace.http")


class Connection(web.RequestHandler):
    """Refuses what is not HTTP with a problem of ours, so that strangers fill no log and learn no library's name."""

    __slots__ = ("_refusals", "body_awaited_since")

    def __init__(
        self, manager: web.Server, refusals: Refusals | None, loop: asyncio.AbstractEventLoop, **options: Any
    ) -> None:
        super().__init__(manager, loop=loop, **options)
        self._refusals = refusals
        self.body_awaited_since = math.inf
        """By the loop's clock; infinity while no body is read."""

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
            response = problem(status, "not-http", "The request is not HTTP as this server takes it.")
            if self._refusals is not None:
                self._refusals.refused(request, response)
        response.headers["Server"] = SERVER
        response.force_close()
        return response


def connection_of(request: web.BaseRequest) -> Connection:
    """Returns the connection on which a request came."""
    assert isinstance(request.protocol, Connection), "each server here makes these"
    return request.protocol
