"""The few shapes of HTTP answer: JSON problems (RFC 9457), CORS headers, and a reply of control turned into a response.
It must never know what was asked or by whom. Read next: `workers/http.py`, which sends them.
"""

from collections.abc import Mapping

from aiohttp import web

from relay import problems
from relay.effects import Reply
from relay.ids import RequestId

NOBODY = RequestId(0)
SERVER = "Millrace"
"""Instead of the names and versions of our libraries."""
EXPOSED = "Location, ETag, Link, Retry-After, Accept-Post, Accept-Patch, WWW-Authenticate"
"""What a script of another origin needs of our answers: RFC 9725 sections 4.2, 4.3, 4.5 and 4.6."""


class Refused(Exception):
    """Ends a request early. A value that travels as an exception because reading a body waits in the middle."""

    def __init__(self, status: int, reason: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.response = problem(status, reason, detail, headers)


def problem(status: int, reason: str, detail: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """A refusal of ours, in the same form as control's."""
    response = from_reply(problems.problem(NOBODY, status, reason, detail))
    response.headers.update(headers or {})
    return response


def method_not_allowed(methods: str) -> web.Response:
    """405, and what is allowed (RFC 9110 section 15.5.6)."""
    return problem(405, "method-not-allowed", f"This takes {methods}.", {"Allow": methods})


def respond(status: int, body: bytes, content_type: str) -> web.Response:
    """An answer with a body."""
    return web.Response(status=status, body=body, headers={"Content-Type": content_type})


def from_reply(reply: Reply) -> web.Response:
    """What control answered. Its headers may repeat a name: `Link` does."""
    response = web.Response(status=reply.status, body=reply.body)
    for name, value in reply.headers:
        response.headers.add(name, value)
    return response


class Cors:
    """Who of other origins may read our answers."""

    def __init__(self, origins: tuple[str, ...]) -> None:
        self._any = "*" in origins
        self._origins = frozenset(origins)

    def headers(self, origin: str | None) -> dict[str, str]:
        """For any answer to a request with this `Origin`."""
        if origin is None:
            return {}
        if self._any:
            return {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": EXPOSED}
        # A cache must not give one origin's answer to another.
        if origin not in self._origins:
            return {"Vary": "Origin"}
        return {"Vary": "Origin", "Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": EXPOSED}

    def preflight(self, origin: str | None, methods: str) -> dict[str, str]:
        """For the answer to OPTIONS."""
        headers = self.headers(origin)
        if "Access-Control-Allow-Origin" in headers:
            headers["Access-Control-Allow-Methods"] = methods
            headers["Access-Control-Allow-Headers"] = "Authorization, Content-Type, If-Match"
            headers["Access-Control-Max-Age"] = "86400"
        return headers
