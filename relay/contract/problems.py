"""HTTP answers that control gives: problems (RFC 9457) and JSON. Owns their form; must never decide which one is due.
Read `relay/whip/requests.py` for who does.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from millrace.relay.contract.effects import Reply
from millrace.relay.contract.events import Outcome
from millrace.relay.contract.ids import RequestId, SessionId, Slot

PROBLEM = "application/problem+json"
NOT_MOVED = {
    Outcome.HANDSHAKING: "Its handshake is under way, which no other worker could finish. Ask again in a second.",
    Outcome.NO_RECORD: "It has no session record from which another worker could adopt it.",
    Outcome.BUSY: "The other worker does not read what it is told fast enough. Ask again in a second.",
    Outcome.REFUSED: "The other worker has no room for it, or cannot read its record.",
    Outcome.UNANSWERED: "The other worker did not answer in time.",
}
RETRY_AFTER_SECONDS = 5
"""Long enough that refused clients do not become the load, short enough that a person waits for it."""


def problem(request: RequestId, status: int, reason: str, detail: str) -> Reply:
    """A refusal; `reason` is a stable name such as `room-name`, `detail` one sentence for a person."""
    headers = [("Content-Type", PROBLEM)]
    if status == 503:
        headers.append(("Retry-After", str(RETRY_AFTER_SECONDS)))
    if status == 401:
        headers.append(("WWW-Authenticate", "Bearer"))
    body = {
        "type": f"urn:millrace:problem:{reason}",
        "title": reason.replace("-", " "),
        "status": status,
        "detail": detail,
    }
    return Reply(request, status, tuple(headers), json.dumps(body).encode())


def json_reply(request: RequestId, value: Mapping[str, Any] | Sequence[Any]) -> Reply:
    """200 with JSON."""
    return Reply(request, 200, (("Content-Type", "application/json"),), json.dumps(value).encode())


def moved(request: RequestId, session: SessionId, slot: Slot) -> Reply:
    """A session goes on in that slot."""
    return json_reply(request, {"session": session, "slot": slot, "outcome": Outcome.MOVED.value})


def not_moved(request: RequestId, outcome: Outcome) -> Reply:
    """It goes on where it was, and why."""
    return problem(request, 409, f"not-moved-{outcome.replace('_', '-')}", NOT_MOVED[outcome])


def session_replaced(request: RequestId) -> Reply:
    """Its client must not come again by itself, or it would end the newer one, and so for ever."""
    return problem(request, 404, "session-replaced", "A newer session of the same participant publishes here now.")


def session_unknown(request: RequestId) -> Reply:
    """The same words for a session that never was, that ended, or that only its id's owner may know of."""
    return problem(request, 404, "session-unknown", "No such session here: it has ended, or never was.")
