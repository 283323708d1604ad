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
TYPE = "urn:millrace:problem:"
"""Before the reason, in a problem's `type`."""
NOT_MOVED = {
    Outcome.HANDSHAKING: "Its handshake is under way, which no other worker could finish. Ask again in a second.",
    Outcome.NO_RECORD: "It has no session record from which another worker could adopt it.",
    Outcome.BUSY: "The other worker does not read what it is told fast enough. Ask again in a second.",
    Outcome.REFUSED: "The other worker has no room for it, or cannot read its record.",
    Outcome.UNANSWERED: "The other worker did not answer in time.",
}
RETRY_LATER = (429, 502, 503, 504)
"""Statuses for what may be over soon."""
RETRY_AFTER_SECONDS = 5
"""Seconds after which a client that got one of these may come again: the many must not become the load, and a person
still waits.
"""


def problem(request: RequestId, status: int, reason: str, detail: str) -> Reply:
    """A refusal; `reason` is a stable name such as `room-name`, `detail` one sentence for a person."""
    headers = [("Content-Type", PROBLEM)]
    if status in RETRY_LATER:
        headers.append(("Retry-After", str(RETRY_AFTER_SECONDS)))
    if status == 401:
        headers.append(("WWW-Authenticate", "Bearer"))
    body = {
        "type": TYPE + reason,
        "title": reason.replace("-", " "),
        "status": status,
        "detail": detail,
    }
    return Reply(request, status, tuple(headers), json.dumps(body).encode())


def reason_of(reply: Reply) -> str | None:
    """The stable name of a problem's reason; None for an answer that is no problem."""
    if ("Content-Type", PROBLEM) not in reply.headers:
        return None
    # A reply may be another worker's, whose text has the reason already.
    return str(json.loads(reply.body)["type"]).removeprefix(TYPE)


def json_reply(request: RequestId, value: Mapping[str, Any] | Sequence[Any]) -> Reply:
    """200 with JSON."""
    return Reply(request, 200, (("Content-Type", "application/json"),), json.dumps(value).encode())


def moved(request: RequestId, session: SessionId, slot: Slot) -> Reply:
    """200: the session goes on in that slot."""
    return json_reply(request, {"session": session, "slot": slot, "outcome": Outcome.MOVED.value})


def not_moved(request: RequestId, outcome: Outcome) -> Reply:
    """409: the session stays where it was, and why."""
    return problem(request, 409, f"not-moved-{outcome.replace('_', '-')}", NOT_MOVED[outcome])


def session_replaced(request: RequestId) -> Reply:
    """404 for a session that its participant's newer one replaced. A reason of its own: a client that came again by
    itself would end the newer session, whose client would come again.
    """
    return problem(request, 404, "session-replaced", "A newer session of the same participant publishes here now.")


def session_unknown(request: RequestId) -> Reply:
    """404 with the same words for a session that never was and for one that ended: ids cannot be probed."""
    return problem(request, 404, "session-unknown", "No such session here: it has ended, or never was.")
