"""The control plane's counters, by the names they have on the metrics page. Owns which there are, so that their number
has a bound; must never know how they are rendered (`workers/metrics.py`).
"""

from collections import defaultdict

from relay.effects import Protocol
from relay.events import Cause
from relay.pressure import Pressure

ENGINE_REFUSED = "engine_refused"
"""Control's own cause: a command that opens a session failed."""
FAILURES = frozenset({*Cause, ENGINE_REFUSED} - {Cause.CLOSED, Cause.CLOSED_BY_PEER})
"""Causes that are nobody's wish."""


class Counters:
    """Values by name with labels. All causes, protocols and pressures stand from the start: a rate needs its zero."""

    def __init__(self) -> None:
        self.values: defaultdict[str, int] = defaultdict(int)
        for cause in FAILURES:
            self.values[_failed(cause)] = 0
        for protocol in Protocol:
            self.values[_opened(protocol)] = 0
            self.values[_ended(protocol)] = 0
        for pressure in Pressure:
            self.values[_turned_away(pressure)] = 0

    def opened(self, protocol: Protocol) -> None:
        """A session began."""
        self.values[_opened(protocol)] += 1

    def ended(self, protocol: Protocol) -> None:
        """A session is over, for whatever cause."""
        self.values[_ended(protocol)] += 1

    def failed(self, cause: str) -> None:
        """A session ended or stands still; counted when the cause is a failure."""
        if cause in FAILURES:
            self.values[_failed(cause)] += 1

    def turned_away(self, pressure: Pressure) -> None:
        """A client was not let in because of this."""
        self.values[_turned_away(pressure)] += 1

    def refused(self, status: int) -> None:
        """A request got a problem."""
        self.values[f'millrace_http_refusals_total{{status="{status}"}}'] += 1

    def count(self, name: str) -> None:
        """One without labels: `millrace_{name}_total`."""
        self.values[f"millrace_{name}_total"] += 1

    def measured(self, name: str, seconds: float) -> None:
        """A gauge, `millrace_{name}_seconds` on the page; whole microseconds here, as all values are whole."""
        self.values[f"millrace_{name}_microseconds"] = round(seconds * 1e6)


def _failed(cause: str) -> str:
    return f'millrace_sessions_failed_total{{cause="{cause}"}}'


def _opened(protocol: Protocol) -> str:
    return f'millrace_sessions_opened_total{{protocol="{protocol}"}}'


def _ended(protocol: Protocol) -> str:
    return f'millrace_sessions_ended_total{{protocol="{protocol}"}}'


def _turned_away(pressure: Pressure) -> str:
    return f'millrace_turned_away_total{{pressure="{pressure}"}}'
