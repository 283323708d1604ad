"""Requests for a session's statistics that await the engine. Owns which there are and how many; must never know what a
report says. Read `relay/admin/views.py` next, which shows it.
"""

from dataclasses import dataclass

from millrace.relay.contract.commands import ReportTransport
from millrace.relay.contract.ids import RequestId
from millrace.relay.session.sessions import Session

MAX_WAITING = 1000
REPORT_SECONDS = 3.0
"""A request that waits longer gets 504. The engine answers at its next wake-up, but not for a transport that closed."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    session: Session
    asked_at: float


class Reports:
    """Requests that wait, by their numbers, which the engine carries back."""

    def __init__(self) -> None:
        self._waiting: dict[RequestId, _Waiting] = {}

    def ask(self, request: RequestId, session: Session, now: float) -> ReportTransport | None:
        """Returns the command to submit; None when MAX_WAITING requests wait already."""
        if len(self._waiting) >= MAX_WAITING:
            return None
        self._waiting[request] = _Waiting(session, now)
        return ReportTransport(session.transport, request)

    def take(self, request: RequestId) -> Session | None:
        """A report came. Returns its session; None when the request no longer waits."""
        waiting = self._waiting.pop(request, None)
        return None if waiting is None else waiting.session

    def forget(self, session: Session) -> list[RequestId]:
        """The session ended or moved. Returns the requests that get no report."""
        requests = [request for request, waiting in self._waiting.items() if waiting.session is session]
        for request in requests:
            del self._waiting[request]
        return requests

    def handle_tick(self, now: float) -> list[RequestId]:
        """Returns the requests that have waited for REPORT_SECONDS."""
        late = [r for r, waiting in self._waiting.items() if now - waiting.asked_at >= REPORT_SECONDS]
        for request in late:
            del self._waiting[request]
        return late
