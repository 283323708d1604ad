"""`millrace status`: the administration address of a running server as a table. It must never use anything that a
scraper cannot get. Read next: `workers/metrics/render.py`, where the numbers come from.
"""

import json
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Labels = frozenset[tuple[str, str]]
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_ROOMS_SHOWN = 15
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


def run(admin: str, once: bool) -> int:
    """Prints the table each second until Ctrl-C, or once. Returns 1 when the server does not answer."""
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
                    print(("" if once else "\x1b[H\x1b[2J") + table(before, now), flush=True)
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
    return {
        (name, frozenset(_LABEL.findall(labels or ""))): float(value) for name, labels, value in _SAMPLE.findall(page)
    }


def table(before: Look, now: Look) -> str:
    """Returns two looks as a table; rates are per second between them."""
    seconds = max(now.at - before.at, 1e-3)

    def rate(name: str, **labels: str) -> float:
        return max(0.0, now.get(name, **labels) - before.get(name, **labels)) / seconds

    def all_of(name: str) -> float:
        return max(0.0, now.sum(name) - before.sum(name)) / seconds

    def within(name: str) -> str:
        middle, most = (now.quantile(share, name, before) for share in (0.5, 0.99))
        return f"{middle * 1000:g} and {most * 1000:g} ms" if most else "-"

    deadline = max((now.get("millrace_drain_deadline_seconds", slot=slot) for slot in now.slots()), default=0.0)
    state = f"draining for {max(0.0, deadline - time.time()):.0f} s more" if deadline else "serving"
    lines = [
        f"Millrace is {state}   up {_span(time.time() - now.get('millrace_start_time_seconds'))}",
        f"  in   {_flow(rate('millrace_bytes_received_total'), rate('millrace_packets_received_total'))}",
        f"  out  {_flow(rate('millrace_bytes_sent_total'), rate('millrace_packets_forwarded_total'))}",
        f"  drops {all_of('millrace_drops_total'):,.1f}/s   kernel {all_of('millrace_kernel_drops_total'):,.1f}/s   "
        f"handed over {rate('millrace_handovers_out_total'):,.1f}/s",
        f"  half and 99 % of packets forwarded within {within('millrace_forwarding_seconds')}   "
        f"handshakes {rate('millrace_handshakes_done_total'):,.1f}/s within {within('millrace_handshake_seconds')}",
        f"  lost and asked for again: {rate('millrace_nacks_sent_total'):,.1f}/s of publishers, "
        f"{rate('millrace_nacks_received_total'):,.1f}/s by viewers   "
        f"key frames asked for {rate('millrace_key_frame_requests_sent_total'):,.1f}/s",
        f"  arena {now.get('millrace_arena_resident_bytes') / 1e6:,.0f} MB   "
        f"adopted {now.get('millrace_sessions_adopted_total'):,.0f} sessions, "
        f"lost {now.get('millrace_sessions_lost_total'):,.0f}   "
        f"moved {now.get('millrace_moves_in_total'):,.0f}   "
        f"rejected {all_of('millrace_sessions_rejected_total'):,.1f}/s",
        "",
        "worker    state  sessions  tracks  streams      in/s     out/s  drops/s  engine late  control late  last beat"
        "    cpu   memory   fds  starts",
    ]
    for slot in now.slots():
        silent = max(
            now.get("millrace_worker_beat_age_seconds", slot=slot, loop=loop) for loop in ("engine", "control")
        )
        state = "drained" if now.get("millrace_slot_closed", slot=slot) == 1 else "up"
        if now.get("millrace_worker_wanted", slot=slot) != 1:
            state = "leaves"
        if now.get("millrace_worker_up", slot=slot) != 1:
            state = "DOWN"
        lines.append(
            f"{slot:>6} {state:>8}"
            f" {now.get('millrace_transports', slot=slot):>9,.0f} {now.get('millrace_publications', slot=slot):>7,.0f}"
            f" {now.get('millrace_subscriptions', slot=slot):>8,.0f}"
            f" {now.done(slot, 'packets_in', before) / seconds:>9,.0f}"
            f" {now.done(slot, 'packets_out', before) / seconds:>9,.0f}"
            f" {(now.done(slot, 'drops', before) + now.done(slot, 'kernel_drops', before)) / seconds:>8,.1f}"
            f" {now.engine_late(slot, before):>9g} ms {now.control_late(slot):>10.1f} ms {silent * 1000:>7,.0f} ms"
            f" {rate('millrace_process_cpu_seconds_total', slot=slot):>6.0%}"
            f" {now.get('millrace_process_resident_bytes', slot=slot) / 1e6:>5,.0f} MB"
            f" {now.get('millrace_process_open_fds', slot=slot):>5,.0f}"
            f" {now.get('millrace_worker_starts_total', slot=slot):>7,.0f}"
        )
    return "\n".join([*lines, "", *_rooms(now.rooms)]) + "\n"


def _bound(buckets: Mapping[float, float], share: float) -> float:
    """Returns the upper bound of the bucket that reaches this share of all; counts are cumulative."""
    total = max(buckets.values(), default=0.0)
    return min((bound for bound, count in buckets.items() if total > 0 and count >= share * total), default=0.0)


def _rooms(rooms: list[dict[str, Any]]) -> list[str]:
    if not rooms:
        return ["no rooms"]
    largest = sorted(rooms, key=lambda room: -int(room["participants"]))
    lines = [f"{'room':<32} participants  publishers  viewers"]
    for room in largest[:_ROOMS_SHOWN]:
        name = str(room["name"])
        shown = name if len(name) <= 32 else name[:31] + "…"
        lines.append(f"{shown:<32} {room['participants']:>12} {len(room['publishers']):>11} {room['viewers']:>8}")
    if len(rooms) > _ROOMS_SHOWN:
        lines.append(f"and {len(rooms) - _ROOMS_SHOWN} more")
    return lines


def _read(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            read: bytes = answer.read()
            return read
    except urllib.error.URLError as error:
        raise OSError(error.reason) from error


def _flow(bytes_per_second: float, packets_per_second: float) -> str:
    value, units = bytes_per_second * 8, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:6.1f} {units[0]:<6} {packets_per_second:>9,.0f} packets/s"


def _span(seconds: float) -> str:
    days, rest = divmod(int(max(0.0, seconds)), 86_400)
    clock = f"{rest // 3600}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days} d {clock}" if days else clock
