"""Two looks at a running server as text: a table of at most 80 columns for people, JSON for programs. It must never ask
the server anything. Read next: `master/operator/status.py`, which looks.
"""

import json
import time
from typing import Any

from millrace.master.operator.rooms import room_lines
from millrace.master.operator.status import Look

_ROOMS_SHOWN = 15


def as_json(before: Look, now: Look) -> str:
    """Returns the same as `table` as one line of JSON; rates are per second."""
    seconds = _seconds(before, now)
    rates = {
        name: max(0.0, now.sum(f"millrace_{name}_total") - before.sum(f"millrace_{name}_total")) / seconds
        for name in (
            *("bytes_received", "packets_received", "bytes_sent", "packets_forwarded", "drops", "kernel_drops"),
            *("handovers_out", "handshakes_done", "nacks_sent", "nacks_received", "key_frame_requests_sent"),
            "sessions_rejected",
        )
    }
    view = {
        "state": "draining" if _deadline(now) else "serving",
        "started_at": now.get("millrace_start_time_seconds"),
        "drained_at": _deadline(now) or None,
        "per_second": rates,
        "arena_bytes": now.get("millrace_arena_resident_bytes"),
        "workers": [_worker(before, now, slot) for slot in now.slots()],
        "rooms": now.rooms,
    }
    return json.dumps(view) + "\n"


def table(before: Look, now: Look) -> str:
    """Returns lines of at most 80 columns."""
    seconds = _seconds(before, now)

    def rate(name: str, **labels: str) -> float:
        return max(0.0, now.get(name, **labels) - before.get(name, **labels)) / seconds

    def all_of(name: str) -> float:
        return max(0.0, now.sum(name) - before.sum(name)) / seconds

    def within(name: str) -> str:
        middle, most = (now.quantile(share, name, before) for share in (0.5, 0.99))
        return f"{middle * 1000:g} and {most * 1000:g} ms" if most else "-"

    deadline = _deadline(now)
    state = f"draining for {max(0.0, deadline - time.time()):.0f} s more" if deadline else "serving"
    lines = [
        f"Millrace is {state}   up {_span(time.time() - now.get('millrace_start_time_seconds'))}",
        f"  in   {_flow(rate('millrace_bytes_received_total'), rate('millrace_packets_received_total'))}",
        f"  out  {_flow(rate('millrace_bytes_sent_total'), rate('millrace_packets_forwarded_total'))}",
        f"  half and 99 % of packets forwarded within {within('millrace_forwarding_seconds')}",
        f"  handshakes {rate('millrace_handshakes_done_total'):,.1f}/s within {within('millrace_handshake_seconds')}",
        f"  drops {all_of('millrace_drops_total'):,.1f}/s   kernel {all_of('millrace_kernel_drops_total'):,.1f}/s   "
        f"handed over {rate('millrace_handovers_out_total'):,.1f}/s",
        f"  asked for again: {rate('millrace_nacks_sent_total'):,.1f}/s of publishers, "
        f"{rate('millrace_nacks_received_total'):,.1f}/s by viewers",
        f"  key frames asked for {rate('millrace_key_frame_requests_sent_total'):,.1f}/s   "
        f"sessions rejected {all_of('millrace_sessions_rejected_total'):,.1f}/s",
        f"  arena {now.get('millrace_arena_resident_bytes') / 1e6:,.0f} MB   sessions: "
        f"{now.get('millrace_sessions_adopted_total'):,.0f} adopted, "
        f"{now.get('millrace_sessions_lost_total'):,.0f} lost, {now.get('millrace_moves_in_total'):,.0f} moved",
        "",
        "slot   state sessions tracks streams    in/s   out/s drops/s late ms  cpu    MB",
    ]
    for slot in now.slots():
        view = _worker(before, now, slot)
        late = max(view["engine_late_ms"], view["control_late_ms"])
        lines.append(
            f"{slot:>4} {view['state']:>7} {view['sessions']:>8,.0f} {view['tracks']:>6,.0f}"
            f" {view['streams']:>7,.0f} {_short(view['packets_in']):>7} {_short(view['packets_out']):>7}"
            f" {_short(view['drops']):>7} {_short(late):>7} {view['cpu']:>4.0%} {view['memory_bytes'] / 1e6:>5,.0f}"
        )
    rooms = room_lines(now.rooms)
    if len(now.rooms) > _ROOMS_SHOWN:
        rooms = [*rooms[: _ROOMS_SHOWN + 1], f"and {len(now.rooms) - _ROOMS_SHOWN} more"]
    return "\n".join([*lines, "", *rooms]) + "\n"


def _worker(before: Look, now: Look, slot: str) -> dict[str, Any]:
    """Returns what there is to say of one worker; rates are per second."""
    seconds = _seconds(before, now)
    silent = max(now.get("millrace_worker_beat_age_seconds", slot=slot, loop=loop) for loop in ("engine", "control"))
    cpu = "millrace_process_cpu_seconds_total"
    return {
        "slot": int(slot),
        "state": _state(now, slot),
        "sessions": now.get("millrace_transports", slot=slot),
        "tracks": now.get("millrace_publications", slot=slot),
        "streams": now.get("millrace_subscriptions", slot=slot),
        "packets_in": now.done(slot, "packets_in", before) / seconds,
        "packets_out": now.done(slot, "packets_out", before) / seconds,
        "drops": (now.done(slot, "drops", before) + now.done(slot, "kernel_drops", before)) / seconds,
        "engine_late_ms": now.engine_late(slot, before),
        "control_late_ms": now.control_late(slot),
        "last_beat_ms": silent * 1000,
        "cpu": max(0.0, now.get(cpu, slot=slot) - before.get(cpu, slot=slot)) / seconds,
        "memory_bytes": now.get("millrace_process_resident_bytes", slot=slot),
        "open_fds": now.get("millrace_process_open_fds", slot=slot),
        "starts": now.get("millrace_worker_starts_total", slot=slot),
    }


def _state(now: Look, slot: str) -> str:
    if now.get("millrace_worker_up", slot=slot) != 1:
        return "DOWN"
    if now.get("millrace_worker_wanted", slot=slot) != 1:
        return "leaves"
    return "drained" if now.get("millrace_slot_closed", slot=slot) == 1 else "up"


def _deadline(now: Look) -> float:
    return max((now.get("millrace_drain_deadline_seconds", slot=slot) for slot in now.slots()), default=0.0)


def _seconds(before: Look, now: Look) -> float:
    return max(now.at - before.at, 1e-3)


def _short(value: float) -> str:
    """Returns a rate in at most seven characters."""
    if value < 1_000:
        return f"{value:.1f}"
    return f"{value:,.0f}" if value < 1_000_000 else f"{value / 1_000:,.0f}k"


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
