"""The operator's own answer to who may come in: what an answer of the hook means, for how long it holds, and which
requests wait for one. Owns these answers and their bounds; must never ask, as that waits. Read
`relay/access/decision.py` for when the hook is asked, and `workers/hook.py`, which asks.

    question ──► known and fresh ──► the request is decided at once
           └───► not known ──► the request is held ──► HookAnswered ──► it is handled again
"""

import json
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from millrace.relay.access.grants import read_sources
from millrace.relay.config.names import is_name
from millrace.relay.config.rules import ROOM_PATTERN
from millrace.relay.contract.access import Action, HookFailure, HookOutcome, HookQuestion, HookReplied
from millrace.relay.contract.inputs import Offered, RoomsListed
from millrace.relay.contract.refusal import Refusal

GRANT_SECONDS = 10.0
"""How long a grant holds: a page that lists rooms each second, or a player that tries again, asks once."""
REFUSAL_SECONDS = 2.0
"""How long a refusal holds: somebody who was let in meanwhile waits for no longer."""
FAILURE_SECONDS = 1.0
"""How long a client is told that the hook does not answer before it is asked for the same client again."""
MAX_ANSWERS = 1_000
"""Answers remembered, of some 1 kB with a token; the oldest is dropped past it."""
MAX_QUESTIONS = 64
"""Under way at once. With a hook that takes 50 ms that is 1,280 a second; past it a request is refused with 503."""
MAX_WAITING = 128
"""Requests that wait for the hook: half of those that a worker's HTTP server takes at once, so that a hook that is slow
leaves room for who needs none. Past it a request is refused with 503.
"""
MAX_REASON = 200
"""Characters of a hook's reason that a client is told."""

Held = Offered | RoomsListed

BUSY = Refusal(503, "hook-busy", "Too many wait for the server that decides who may come in.")
FAILURES = {
    HookOutcome.TIMEOUT: Refusal(
        504, "hook-timeout", "The server that decides who may come in did not answer in time. Try again."
    ),
    HookOutcome.UNREACHABLE: Refusal(
        502, "hook-unreachable", "The server that decides who may come in cannot be reached. Try again."
    ),
    HookOutcome.UNREADABLE: Refusal(
        502, "hook-unreadable", "The server that decides who may come in gave no answer that can be read. Try again."
    ),
}


@dataclass(frozen=True, slots=True)
class HookGrant:
    """What the hook grants."""

    identity: str | None = None
    sources: tuple[str, ...] = ()
    """What may be published, as in `Grant.sources`."""
    rooms: tuple[str, ...] = ()
    """LIST: patterns of the rooms that are shown."""


@dataclass(frozen=True, slots=True)
class _Answer:
    decision: HookGrant | Refusal
    until: float
    """CLOCK_MONOTONIC, seconds."""


class Hook:
    """Answers that still hold, and requests that wait for one."""

    def __init__(self) -> None:
        self._answers: OrderedDict[HookQuestion, _Answer] = OrderedDict()
        self._held: dict[HookQuestion, list[Held]] = {}
        self._waiting = 0

    def decision(self, question: HookQuestion, now: float) -> HookGrant | Refusal | None:
        """What the hook said a short while ago; None when it has to be asked. `now` is CLOCK_MONOTONIC."""
        answer = self._answers.get(question)
        return answer.decision if answer is not None and now < answer.until else None

    def hold(self, question: HookQuestion, request: Held) -> bool | Refusal:
        """Holds a request until the question is answered. True when the hook is to be asked, False when it has been
        already, or a refusal when too many wait.
        """
        held = self._held.get(question)
        if self._waiting >= MAX_WAITING or (held is None and len(self._held) >= MAX_QUESTIONS):
            return BUSY
        self._waiting += 1
        if held is not None:
            held.append(request)
            return False
        self._held[question] = [request]
        return True

    def take(
        self, question: HookQuestion, answer: HookReplied | HookFailure, now: float
    ) -> tuple[HookOutcome, list[Held]]:
        """Takes an answer. Returns how the question ended, and the requests that waited for it."""
        decision = read_answer(question, answer)
        if isinstance(decision, HookGrant):
            outcome, seconds = HookOutcome.GRANTED, GRANT_SECONDS
        elif decision in FAILURES.values():
            outcome, seconds = _failure_of(decision), FAILURE_SECONDS
        else:
            outcome, seconds = HookOutcome.REFUSED, REFUSAL_SECONDS
        self._answers.pop(question, None)
        self._answers[question] = _Answer(decision, now + seconds)
        if len(self._answers) > MAX_ANSWERS:
            self._answers.popitem(last=False)
        held = self._held.pop(question, [])
        self._waiting -= len(held)
        return outcome, held


def read_answer(question: HookQuestion, answer: HookReplied | HookFailure) -> HookGrant | Refusal:
    """What the hook's answer means: 200 with a JSON object grants what it does not forbid; 401 and 403 refuse, with a
    reason for the client. All else is a failure.
    """
    if not isinstance(answer, HookReplied):
        return FAILURES[answer]
    said = _object(answer.body)
    if answer.status in (401, 403):
        return Refusal(answer.status, "hook-refused", _reason(said))
    granted = _grant(said) if answer.status == 200 and said is not None else None
    if granted is None or said is None:
        return FAILURES[HookOutcome.UNREADABLE]
    needed = {Action.PUBLISH: "can_publish", Action.WATCH: "can_subscribe"}.get(question.action)
    if needed is not None and said.get(needed) is False:
        return Refusal(403, "hook-refused", _reason(said))
    return granted


def _failure_of(refusal: Refusal) -> HookOutcome:
    return next(outcome for outcome, failure in FAILURES.items() if failure is refusal)


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def _grant(said: dict[str, Any]) -> HookGrant | None:
    identity, rooms = said.get("identity"), said.get("rooms", [])
    sources = read_sources(said.get("can_publish_sources"))
    is_sound = (
        (identity is None or (isinstance(identity, str) and is_name(identity)))
        and all(isinstance(said.get(name, True), bool) for name in ("can_publish", "can_subscribe"))
        and isinstance(rooms, list)
        and all(isinstance(room, str) and ROOM_PATTERN.accepts(room) for room in rooms)
    )
    return HookGrant(identity, sources, tuple(rooms)) if is_sound and sources is not None else None


def _reason(said: dict[str, Any] | None) -> str:
    reason = (said or {}).get("reason")
    text = "".join(letter for letter in reason if letter.isprintable()) if isinstance(reason, str) else ""
    return text[:MAX_REASON] or "The server that decides who may come in refuses this."
