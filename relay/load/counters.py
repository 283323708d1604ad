"""The control plane's counters, by the names they have on the metrics page. Owns which there are, so that their number
has a bound; must never know how they are rendered (`workers/metrics/render.py`).
"""

from collections import defaultdict
from enum import StrEnum

from millrace.relay.contract.access import HookOutcome
from millrace.relay.contract.commands import CodecName
from millrace.relay.contract.events import Cause
from millrace.relay.contract.protocol import Protocol
from millrace.relay.load.pressure import Pressure

ENGINE_REFUSED = "engine_refused"
"""Control's own cause: a command that opens a session failed."""
FAILURES = frozenset({*Cause, ENGINE_REFUSED} - {Cause.CLOSED, Cause.CLOSED_BY_PEER, Cause.CONSENT_LOST})
"""Causes that neither side wished for. Who was connected and left without a word (a phone that sleeps, a window that is
closed, a network that is gone) has not failed.
"""

REFUSALS = (
    (401, "expired"),
    (401, "no-token"),
    (403, "hook-refused"),
    (404, "session-unknown"),
    (429, "over-share"),
    (502, "hook-unreachable"),
    (502, "hook-unreadable"),
    (503, "draining"),
    (503, "hook-busy"),
    (503, "no-slot"),
    (503, "overloaded"),
    (503, "publications-full"),
    (503, "sessions-full"),
    (504, "hook-timeout"),
)
"""Statuses and reasons that alerts and people look for, so that they are there from the start. Others come when a
request is refused for them.
"""
MAX_REFUSALS = 150
"""Kinds of refusals that have a counter of their own: all that this release knows. Further ones count as `other`."""


class Count(StrEnum):
    """What is counted without labels: `millrace_{count}_total` on the page."""

    BUS_QUEUE_FULL = "bus_queue_full"
    BUS_UNANSWERED = "bus_unanswered"
    BUS_UNREADABLE_ANSWER = "bus_unreadable_answer"
    BUS_UNREADABLE_CALL = "bus_unreadable_call"
    BUS_UNREADABLE_FACT = "bus_unreadable_fact"
    COMMANDS_REFUSED = "commands_refused"
    DEFECTS = "defects"
    ICE_RESTARTS = "ice_restarts"
    RECORDS_TOO_LONG = "records_too_long"
    REQUESTS_PASSED_ON = "requests_passed_on"
    SESSIONS_BALANCED = "sessions_balanced"
    SESSIONS_EVICTED = "sessions_evicted"
    SESSIONS_GIVEN_UP = "sessions_given_up"
    SNAPSHOTS_ASKED = "snapshots_asked"


class Contract(StrEnum):
    """Where other releases are met: the label of `millrace_messages_unknown_total`."""

    FACTS = "facts"
    CALLS = "calls"
    ANSWERS = "answers"
    RECORDS = "records"
    """Session records."""


class Seconds(StrEnum):
    """What is measured in seconds: `millrace_{name}_seconds` on the page."""

    CONTROL_LATE = "control_late"
    WORKER_CONTROL_STARTED = "worker_control_started"
    WORKER_ENGINE_STARTED = "worker_engine_started"


class Counters:
    """Values by name with labels. All of them exist from the start, as a rate needs its zero."""

    def __init__(self) -> None:
        self.values: defaultdict[str, int] = defaultdict(int)
        for cause in FAILURES:
            self.values[_failed(cause)] = 0
        for protocol in Protocol:
            self.values[_opened(protocol)] = 0
            self.values[_ended(protocol)] = 0
        for pressure in Pressure:
            self.values[_sessions_rejected(pressure)] = 0
        self._refusals = set(REFUSALS)
        for status, reason in REFUSALS:
            self.values[_refused(status, reason)] = 0
        for outcome in HookOutcome:
            self.values[_hook_answered(outcome)] = 0
        for codec in CodecName:
            self.values[_unplayable(codec)] = 0
        for count in Count:
            self.values[_counted(count)] = 0
        for contract in Contract:
            self.values[_unknown(contract)] = 0
        for name in Seconds:
            self.measured(name, 0)

    def opened(self, protocol: Protocol) -> None:
        """Counts a session that was opened."""
        self.values[_opened(protocol)] += 1

    def ended(self, protocol: Protocol) -> None:
        """Counts a session that is over, for whatever cause."""
        self.values[_ended(protocol)] += 1

    def failed(self, cause: str) -> None:
        """Counts a session that ended or stalled, when the cause is a failure."""
        if cause in FAILURES:
            self.values[_failed(cause)] += 1

    def session_rejected(self, pressure: Pressure) -> None:
        """Counts a session that was rejected because of this."""
        self.values[_sessions_rejected(pressure)] += 1

    def unplayable(self, codec: CodecName) -> None:
        """Counts a stream of a viewer that lacks the codec which is sent."""
        self.values[_unplayable(codec)] += 1

    def refused(self, status: int, reason: str) -> None:
        """Counts a request of a client that was refused, once, by the worker that it came to."""
        kind = (status, reason)
        if kind not in self._refusals and len(self._refusals) >= MAX_REFUSALS:
            kind = (status, "other")
        self._refusals.add(kind)
        self.values[_refused(*kind)] += 1

    def hook_answered(self, outcome: HookOutcome) -> None:
        """Counts a question to the hook, by how it ended."""
        self.values[_hook_answered(outcome)] += 1

    def count(self, name: Count) -> None:
        """Counts one more of these."""
        self.values[_counted(name)] += 1

    def unknown(self, contract: Contract) -> None:
        """Counts a message, or a part of one, that was skipped, as this release does not know its kind."""
        self.values[_unknown(contract)] += 1

    def measured(self, name: Seconds, seconds: float) -> None:
        """Sets what was measured. It is kept in whole microseconds, as all values are whole numbers."""
        self.values[microseconds(name)] = round(seconds * 1e6)


def microseconds(name: Seconds) -> str:
    """The name under which the values have what was measured."""
    return f"millrace_{name}_microseconds"


def _counted(name: Count) -> str:
    return f"millrace_{name}_total"


def _unknown(contract: Contract) -> str:
    return f'millrace_messages_unknown_total{{contract="{contract}"}}'


def _refused(status: int, reason: str) -> str:
    return f'millrace_http_refusals_total{{status="{status}",reason="{reason}"}}'


def _hook_answered(outcome: HookOutcome) -> str:
    return f'millrace_hook_answers_total{{outcome="{outcome}"}}'


def _unplayable(codec: CodecName) -> str:
    return f'millrace_streams_unplayable_total{{codec="{codec}"}}'


def _failed(cause: str) -> str:
    return f'millrace_sessions_failed_total{{cause="{cause}"}}'


def _opened(protocol: Protocol) -> str:
    return f'millrace_sessions_opened_total{{protocol="{protocol}"}}'


def _ended(protocol: Protocol) -> str:
    return f'millrace_sessions_ended_total{{protocol="{protocol}"}}'


def _sessions_rejected(pressure: Pressure) -> str:
    return f'millrace_sessions_rejected_total{{pressure="{pressure}"}}'
