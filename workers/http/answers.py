"""The few shapes of HTTP answer: JSON problems (RFC 9457), and a reply of control turned into a response.
It must never know what was asked or by whom. Read next: `workers/http/server.py`, which sends them.
"""

from collections.abc import Mapping

from aiohttp import web

from millrace.relay.contract import problems
from millrace.relay.contract.effects import Reply
from millrace.relay.contract.ids import NO_REQUEST

SERVER = "Millrace"
"""Instead of the names and versions of our libraries."""


class Refused(Exception):
    """Ends a request early. A value that travels as an exception because reading a body waits in the middle."""

    def __init__(self, status: int, reason: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.response = problem(status, reason, detail, headers)


def problem(status: int, reason: str, detail: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """A refusal of ours, in the same form as control's."""
    response = from_reply(problems.problem(NO_REQUEST, status, reason, detail))
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
