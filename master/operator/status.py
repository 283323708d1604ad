"""`millrace status`: looks at the administration address of a running server, once or each second. It must never use
anything that a scraper cannot get. Read next: `master/operator/status_table.py`, which shows it, and
`workers/metrics/render.py`, where the numbers come from.
"""

import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]
SECONDS = 1.0
"""Between two looks, over which rates are calculated."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a server shows at one moment."""

    at: float
    metrics: Mapping[tuple[str, Labels], float]
    rooms: list[dict[str, Any]]
    workers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The objects of `/slots`, by slot."""

    def get(self, name: str, **labels: str) -> float:
        """Returns the value of one series; 0 when there is none."""
        return self.metrics.get((name, frozenset(labels.items())), 0.0)

    def sum(self, name: str) -> float:
        """Returns the sum of all series of a name."""
        return sum(value for (found, _), value in self.metrics.items() if found == name)

    def quantile(self, share: float, name: str, before: "Look") -> float:
        """Returns a histogram's quantile between two looks, as its bucket's upper bound; 0 when nothing was counted."""
        buckets = {
            float(dict(labels)["le"]): value - before.metrics.get((found, labels), 0.0)
            for (found, labels), value in self.metrics.items()
            if found == f"{name}_bucket"
        }
        return _bound(buckets, share)

    def done(self, slot: str, name: str, before: "Look") -> float:
        """Returns what a worker counted between two looks."""
        then, now = (float(look.workers.get(slot, {}).get(name, 0)) for look in (before, self))
        return max(0.0, now - then)

    def engine_late(self, slot: str, before: "Look") -> float:
        """Returns how late 99 % of the engine's rounds between two looks were at most, in milliseconds; else 0."""
        then, now = (look.workers.get(slot, {}).get("engine_late_us", {}) for look in (before, self))
        buckets, so_far = {}, 0.0
        for bound in sorted((bound for bound in now if bound != "sum"), key=float):
            so_far += now[bound] - then.get(bound, 0)
            buckets[float(bound) / 1000] = so_far
        return _bound(buckets, 0.99)

    def control_late(self, slot: str) -> float:
        """Returns how late the control loop was on average over a second, in milliseconds."""
        return float(self.workers.get(slot, {}).get("control_late_ms", 0))

    def slots(self) -> list[str]:
        """Returns the slots that the server shows, in order."""
        found = {dict(labels)["slot"] for name, labels in self.metrics if name == "millrace_worker_up"}
        return sorted(found, key=int)


def run(admin: str, once: bool, as_json: bool, show: Callable[[Look, Look], str]) -> int:
    """Prints what `show` makes of two looks each second until Ctrl-C, or once. Returns 1 when the server does not
    answer.
    """
    before: Look | None = None
    try:
        while True:
            try:
                now = look(admin)
            except (OSError, ValueError) as error:
                print(f"millrace: {admin} does not answer: {error}", file=sys.stderr)
                if once:
                    return 1
                before = None
            else:
                if before is not None:
                    print(("" if once or as_json else "\x1b[H\x1b[2J") + show(before, now), end="", flush=True)
                    if once:
                        return 0
                before = now
            time.sleep(SECONDS)
    except KeyboardInterrupt:
        return 0


def look(admin: str) -> Look:
    """Asks the server once. Raises OSError or ValueError."""
    page, rooms, slots = (_read(f"{admin}/{name}") for name in ("metrics", "rooms", "slots"))
    workers = {str(each["slot"]): each for each in json.loads(slots)}
    return Look(time.monotonic(), parse(page.decode()), json.loads(rooms), workers)


def parse(page: str) -> dict[tuple[str, Labels], float]:
    """Returns the series and values of a metrics page in Prometheus' text format."""
    families = text_string_to_metric_families(page)
    return {(each.name, frozenset(each.labels.items())): each.value for family in families for each in family.samples}


def _bound(buckets: Mapping[float, float], share: float) -> float:
    """Returns the upper bound of the bucket that reaches this share of all; counts are cumulative."""
    total = max(buckets.values(), default=0.0)
    return min((bound for bound, count in buckets.items() if total > 0 and count >= share * total), default=0.0)


def _read(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            read: bytes = answer.read()
            return read
    except urllib.error.URLError as error:
        raise OSError(error.reason) from error
