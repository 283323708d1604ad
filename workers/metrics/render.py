"""The only import of prometheus_client: renders the metrics page of the whole box from one worker. It must never count
anything itself. Read next: `relay/engine/core/src/stats.rs` and `relay/load/counters.py`, which count.

No label ever names a room, a session or a client, so the number of series depends on the configuration alone. Counters
that a worker's death must not reset lie in the arena and are summed over slots. Counters of a process have its slot as
label.
"""

import asyncio
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest  # noqa: TID251
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric  # noqa: TID251
from prometheus_client.registry import Collector  # noqa: TID251

from millrace.relay.contract.events import Cause
from millrace.relay.load.counters import FAILURES
from millrace.workers.metrics.processes import ProcessStats, read_process

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

HELP = {
    "datagrams_received": "UDP datagrams that came in",
    "bytes_received": "Bytes of UDP payload that came in",
    "datagrams_sent": "UDP datagrams that went out",
    "bytes_sent": "Bytes of UDP payload that went out",
    "send_calls": "System calls that sent datagrams",
    "stun_requests": "STUN binding requests",
    "packets_received": "RTP packets from publishers",
    "packets_forwarded": "RTP packets to viewers, retransmissions included",
    "packets_retransmitted": "RTP packets sent to viewers again",
    "packets_recovered": "RTP packets that came after they were asked for again",
    "nacks_received": "Sequence numbers that viewers asked for again",
    "nacks_sent": "Sequence numbers that publishers were asked for again",
    "key_frame_requests_sent": "Key frame requests sent to publishers",
    "key_frame_requests_received": "Key frame requests received from viewers",
    "handovers_out": "Datagrams handed over to another worker, because the kernel delivered them to the wrong one",
    "handovers_in": "Datagrams that another worker handed over",
    "sessions_adopted": "Sessions of a worker that died which its successor adopted",
    "sessions_lost": "Sessions of a worker that died which its successor could not adopt",
    "moves_in": "Sessions that came from another slot",
    "moves_out": "Sessions that went to another slot",
    "sessions_balanced": "Sessions that a late worker gave to one that was better off (workers.balance)",
    "sessions_evicted": "Sessions that did not connect and made room for others on a full worker",
    "moves_failed": "Sessions that were to go to another slot, and stay",
    "handshakes_done": "DTLS handshakes that succeeded",
    "handshakes_evicted": "DTLS handshakes without progress that made room for others on a full worker",
    "tcp_accepted": "TCP connections to the media port that were accepted",
    "tcp_refused": "TCP connections that were closed at once, or made room for another, as there were too many",
    "tcp_unchecked": "TCP connections that were closed as no valid ICE check came over them for 5 seconds",
    "tcp_passed": "TCP connections that a worker was passed, as it has the session",
    "proofs_asked": "Binding requests to clients: to a new address before media goes there, and for consent",
    "proofs_answered": "Addresses that answered such a request",
    "proofs_given_up": "Addresses that were asked for two seconds in vain",
    "address_moves_refused": "Addresses that a client nominated and that did not answer, so that media did not move",
    "unknown_sources_tried": "Packets from unknown addresses, tried with the keys of the client that their SSRC names",
    "wakeups": "Wake-ups of the engines' loops",
    "sessions_opened": "Offers that were answered, by protocol",
    "ring_messages_unknown": "Messages between engines that another release has and this one does not, all skipped",
    "sessions_ended": "Sessions that are over, by whatever cause",
    "messages_unknown": "Messages and parts of messages that another release has and this one does not, all skipped",
    "snapshots_asked": "Times that a worker asked another for all of its facts",
    "requests_passed_on": "Requests that were another worker's session's",
    "streams_unplayable": "Streams of viewers that nothing feeds because the publisher sends a codec that they lack",
    "sessions_rejected": "Offers that got 503 because the worker was late, or memory or descriptors were short",
    "control_late_seconds": "How late the control loop was, on average over a second",
    "http_refusals": "Requests of clients that were refused, by the worker that they came to",
    "hook_answers": "Questions to auth.hook, by how they ended",
    "ice_restarts": "ICE restarts that were answered",
    "commands_refused": "Commands that the engine could not carry out, each a defect",
    "defects": "Inputs that raised an exception, each a defect",
}
"""Help texts by the engine's or control's name. The help of any other metric is its name."""
GAUGES = {
    "transports": "Open transports",
    "publications": "Tracks that are published",
    "subscriptions": "Outgoing streams",
    "handshakes": "DTLS handshakes under way",
    "publishers_silent": "Publishers of whom nothing has come for 1.5 seconds",
    "tcp_connections": "TCP connections of clients, those included that have shown no valid ICE check yet",
    "session_records": "Session records in use, of millrace_session_records_limit for each worker",
}
"""The engine's metrics that go up and down, by slot."""
HISTOGRAMS = {
    "forwarding": "From a packet's arrival at its publisher's worker to its sending to a viewer, on whichever worker",
    "engine_late": "How long what was ready may have waited for the engine's loop",
    "handshake": "From a client's first DTLS record to its keys",
    "adoption_gap": "From a worker's last sign of life to its successor's first round with its sessions",
}
"""The engine's histograms, summed over all workers."""
_WITH_LABELS = re.compile(r"(?P<name>[a-z_]+)(?:\{(?P<labels>[^}]*)\})?")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def _help(name: str) -> str:
    bare = name.removeprefix("millrace_")
    return HELP.get(bare, bare.replace("_", " "))


@dataclass(frozen=True, slots=True)
class SlotMetrics:
    """What is known of one slot."""

    slot: int
    incarnation: int
    pid: int
    """0 when the slot has no worker."""
    beat_ages: tuple[float, float]
    """Seconds since the engine's and the control loop's last beat."""
    engine: Mapping[str, int]
    control: Iterable[tuple[str, int]]
    """The control plane's counters, with names as on the page, labels included."""
    drain_deadline: float = 0.0
    """Unix time at which the slot's sessions are closed; 0 while the server does not drain."""
    is_wanted: bool = True
    """True when the slot is to have a worker."""
    is_closed: bool = False
    """True when an operator has drained the slot."""
    deaths: int = 0
    replacements: int = 0

    @property
    def is_shown(self) -> bool:
        """True when the slot has series of its own. A slot that is empty for good adds to the totals only."""
        return self.is_wanted or self.pid != 0


@dataclass(frozen=True, slots=True)
class Resources:
    """How much there is of each resource that can run out."""

    arena_bytes: int
    """Reserved address space."""
    arena_resident_bytes: int
    """Memory in use: pages that were touched."""
    session_records: int
    """How many each worker has."""
    memory_available_bytes: int
    """Left on this machine, or in the control group."""


@dataclass(frozen=True, slots=True)
class BoxMetrics:
    """The box at one moment."""

    version: str
    started_at: float
    steering: str
    slots: tuple[SlotMetrics, ...]
    master_pid: int
    """0 when there is none."""
    resources: Resources
    sockets: tuple[str, ...]
    """Address and port of each media socket, in the engine's order; the same for every worker."""
    lines_dropped: Mapping[str, int]
    """Lines of the log that could not be written at once: by slot, and by `master`."""
    certificate_ends_at: float | None = None
    """Unix time until which the certificate of HTTPS holds; None with HTTP."""


async def render(box: BoxMetrics) -> bytes:
    """Returns the page. A thread renders it, as that takes tens of milliseconds and reads /proc, while the loop goes
    on.
    """
    return await asyncio.get_running_loop().run_in_executor(None, render_now, box)


def render_now(box: BoxMetrics) -> bytes:
    """Returns the page, rendered on the calling thread."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Page(box))
    return generate_latest(registry)


class _Page(Collector):
    def __init__(self, box: BoxMetrics) -> None:
        self._box = box
        self._slots = tuple(slot for slot in box.slots if slot.is_shown)
        self._totals: defaultdict[str, int] = defaultdict(int)
        for slot in box.slots:
            for name, value in slot.engine.items():
                self._totals[name] += value

    def collect(self) -> Iterator[Metric]:
        yield from self._of_box()
        yield from self._resources()
        yield from self._engines()
        yield from self._distributions()
        yield from self._control()
        yield from self._processes()

    def _of_box(self) -> Iterator[Metric]:
        info = GaugeMetricFamily("millrace_info", "What runs", labels=["version", "steering"])
        info.add_metric([self._box.version, self._box.steering], 1)
        yield info
        yield GaugeMetricFamily(
            "millrace_start_time_seconds", "Unix time of the server's start", value=self._box.started_at
        )
        if self._box.certificate_ends_at is not None:
            yield GaugeMetricFamily(
                "millrace_http_certificate_end_time_seconds",
                "Unix time until which the certificate of HTTPS holds",
                value=self._box.certificate_ends_at,
            )
        yield GaugeMetricFamily(
            "millrace_master_up", "0 while workers go on without a master", value=int(self._box.master_pid != 0)
        )
        up = GaugeMetricFamily("millrace_worker_up", "1 while the slot has a worker", labels=["slot"])
        wanted = GaugeMetricFamily(
            "millrace_worker_wanted", "0 while the slot's worker gives its sessions away to leave", labels=["slot"]
        )
        lives = CounterMetricFamily(
            "millrace_worker_starts", "How often the slot's worker was started", labels=["slot"]
        )
        deaths = CounterMetricFamily(
            "millrace_worker_deaths", "How often the slot's worker ended unasked", labels=["slot"]
        )
        replacements = CounterMetricFamily(
            "millrace_worker_replacements", "How often the slot's worker was replaced as planned", labels=["slot"]
        )
        age = GaugeMetricFamily(
            "millrace_worker_beat_age_seconds", "Since the loop last vouched for itself", labels=["slot", "loop"]
        )
        drain = GaugeMetricFamily(
            "millrace_drain_deadline_seconds",
            "Unix time at which the sessions of a worker that drains are closed; 0 when it serves",
            labels=["slot"],
        )
        closed = GaugeMetricFamily(
            "millrace_slot_closed", "1 while the slot is to have no session (millrace drain)", labels=["slot"]
        )
        for slot in self._slots:
            closed.add_metric([str(slot.slot)], int(slot.is_closed))
            up.add_metric([str(slot.slot)], int(slot.pid != 0))
            wanted.add_metric([str(slot.slot)], int(slot.is_wanted))
            lives.add_metric([str(slot.slot)], slot.incarnation)
            deaths.add_metric([str(slot.slot)], slot.deaths)
            replacements.add_metric([str(slot.slot)], slot.replacements)
            drain.add_metric([str(slot.slot)], slot.drain_deadline)
            for loop, seconds in zip(("engine", "control"), slot.beat_ages, strict=True):
                age.add_metric([str(slot.slot), loop], seconds)
        dropped = CounterMetricFamily(
            "millrace_log_lines_dropped", "Lines of the log that could not be written at once", labels=["slot"]
        )
        shown = ["master", *(str(slot.slot) for slot in self._slots)]
        for process in shown:
            dropped.add_metric([process], self._box.lines_dropped.get(process, 0))
        yield from (up, wanted, lives, deaths, replacements, age, drain, closed, dropped)

    def _resources(self) -> Iterator[Metric]:
        resources = self._box.resources
        for name, documentation, value in (
            ("arena_bytes", "Shared memory that is reserved", resources.arena_bytes),
            ("arena_resident_bytes", "Shared memory in use", resources.arena_resident_bytes),
            ("session_records_limit", "Lasting session records that each worker has", resources.session_records),
            (
                "memory_available_bytes",
                "Memory that the machine or the control group has left",
                resources.memory_available_bytes,
            ),
        ):
            yield GaugeMetricFamily(f"millrace_{name}", documentation, value=value)

    def _engines(self) -> Iterator[Metric]:
        totals = self._totals
        drops = CounterMetricFamily(
            "millrace_drops", "Datagrams and packets not forwarded", labels=["direction", "reason"]
        )
        failed = CounterMetricFamily("millrace_sessions_failed", "Sessions that failed or stalled", labels=["cause"])
        vanished = 0
        for name, value in totals.items():
            kind, _, label = name.partition(".")
            if kind == "drops":
                drops.add_metric(label.split("."), value)
            elif kind == "failures" and label == Cause.CONSENT_LOST:
                vanished = value
            elif kind == "failures" and label in FAILURES:
                failed.add_metric([label], value)
            elif kind == "failures":
                # Closed by one of both, which is counted as ended.
                continue
            elif not label and name not in GAUGES:
                yield CounterMetricFamily(f"millrace_{name}", HELP.get(name, name), value=value)
        yield from (drops, failed)
        yield CounterMetricFamily(
            "millrace_sessions_vanished",
            "Sessions whose client was connected and then silent: it was closed, fell asleep or lost its network",
            value=vanished,
        )
        for name, documentation in GAUGES.items():
            gauge = GaugeMetricFamily(f"millrace_{name}", documentation, labels=["slot"])
            for slot in self._slots:
                gauge.add_metric([str(slot.slot)], slot.engine.get(name, 0))
            yield gauge
        kernel = CounterMetricFamily(
            "millrace_kernel_drops",
            "Datagrams that the kernel dropped from a socket's full receive queue",
            labels=["slot", "socket"],
        )
        for slot in self._slots:
            for number, socket in enumerate(self._box.sockets):
                if (dropped := slot.engine.get(f"kernel_drops.{number}")) is not None:
                    kernel.add_metric([str(slot.slot), socket], dropped)
        yield kernel

    def _distributions(self) -> Iterator[Metric]:
        for name, documentation in HISTOGRAMS.items():
            prefix = f"histogram.{name}."
            counts = {key.removeprefix(prefix): n for key, n in self._totals.items() if key.startswith(prefix)}
            total = counts.pop("sum", 0)
            buckets: list[tuple[str, float]] = []
            sum_so_far = 0
            # The engine's names come in alphabetical order, so 1000 before 500.
            for bound, count in sorted(counts.items(), key=lambda item: float(item[0])):
                sum_so_far += count
                buckets.append(("+Inf" if bound == "inf" else str(int(bound) / 1e6), sum_so_far))
            if buckets:
                yield HistogramMetricFamily(
                    f"millrace_{name}_seconds", documentation, buckets=buckets, sum_value=total / 1e6
                )

    def _control(self) -> Iterator[Metric]:
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for slot in self._slots:
            for full_name, value in slot.control:
                matched = _WITH_LABELS.fullmatch(full_name)
                if matched is None or matched["name"] == "millrace_sessions_failed_total":
                    # The engine's count of failures is shown instead, as it outlives the worker.
                    continue
                labels = dict(_LABEL.findall(matched["labels"] or ""))
                name, figure = matched["name"].removesuffix("_total"), float(value)
                kind: type[CounterMetricFamily] | type[GaugeMetricFamily] = CounterMetricFamily
                if name.endswith("_microseconds"):
                    name, figure = name.removesuffix("_microseconds") + "_seconds", value / 1e6
                    kind = GaugeMetricFamily
                family = families.setdefault(name, kind(name, _help(name), labels=[*labels, "slot"]))
                family.add_metric([*labels.values(), str(slot.slot)], figure)
        yield from families.values()

    def _processes(self) -> Iterator[Metric]:
        cpu = CounterMetricFamily("millrace_process_cpu_seconds", "Processor time", labels=["slot"])
        resident = GaugeMetricFamily("millrace_process_resident_bytes", "Memory in use", labels=["slot"])
        descriptors = GaugeMetricFamily("millrace_process_open_fds", "Open descriptors", labels=["slot"])
        limit = GaugeMetricFamily("millrace_process_max_fds", "Descriptors that may be open", labels=["slot"])
        pids = [(str(slot.slot), slot.pid) for slot in self._slots] + [("master", self._box.master_pid)]
        for label, pid in pids:
            found: ProcessStats | None = read_process(pid) if pid else None
            if found is not None:
                cpu.add_metric([label], found.cpu_seconds)
                resident.add_metric([label], found.resident_bytes)
                descriptors.add_metric([label], found.descriptors)
                limit.add_metric([label], found.max_descriptors)
        yield from (cpu, resident, descriptors, limit)
