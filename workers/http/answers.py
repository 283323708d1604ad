"""The shapes of HTTP answers: JSON problems (RFC 9457), and control's replies turned into responses. It must never know
which request is answered. Read next: `workers/http/server.py`, which sends them.
"""

from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from millrace.relay.contract import problems
from millrace.relay.contract.effects import Reply
from millrace.relay.contract.ids import NO_REQUEST

SERVER = "Millrace"
"""The `Server` field, which would else name our libraries and their versions."""


class Answer(web.Response):
    """A response to a request that control or we have answered."""

    problem: str | None = None
    """The stable name of the reason for a refusal, for the log and the metrics."""
    undo: Callable[[], Awaitable[object]] | None = None
    """Takes back what the client asked for, when the answer did not reach it."""


class Refused(Exception):
    """Ends a request early. An exception, though a refusal is a value elsewhere, as bodies are read deep in a call
    chain.
    """

    def __init__(self, status: int, reason: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.response = problem(status, reason, detail, headers)


def problem(status: int, reason: str, detail: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """Returns a refusal in the form that control's refusals have."""
    response = from_reply(problems.problem(NO_REQUEST, status, reason, detail))
    response.headers.update(headers or {})
    return response


def method_not_allowed(methods: str) -> web.Response:
    """Returns 405 with the allowed methods (RFC 9110 section 15.5.6)."""
    return problem(405, "method-not-allowed", f"This takes {methods}.", {"Allow": methods})


def respond(status: int, body: bytes, content_type: str) -> web.Response:
    """Returns an answer with a body."""
    return web.Response(status=status, body=body, headers={"Content-Type": content_type})


def from_reply(reply: Reply) -> Answer:
    """Returns control's reply as a response. A header's name may repeat, as `Link` does."""
    response = Answer(status=reply.status, body=reply.body)
    response.problem = problems.reason_of(reply)
    for name, value in reply.headers:
        response.headers.add(name, value)
    return response
