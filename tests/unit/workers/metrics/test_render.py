import os
from dataclasses import replace

from prometheus_client.parser import text_string_to_metric_families

from millrace.workers.metrics.render import BoxMetrics, Resources, SlotMetrics, render, render_now

ENGINE = {
    "packets_received": 10,
    "transports": 2,
    "drops.in.srtp_replay": 3,
    "drops.out.outbox_full": 1,
    "kernel_drops.0": 7,
    "kernel_drops.1": 0,
    "kernel_drops.2": 0,
    "histogram.handshake.100": 1,
    "histogram.handshake.10000": 2,
    "histogram.handshake.2500": 4,
    "histogram.handshake.inf": 1,
    "histogram.handshake.sum": 9_000_000,
    "failures.no_stun": 1,
    "failures.consent_lost": 3,
    "failures.closed_by_peer": 8,
    "new_counter": 5,
}
CONTROL = (
    ('millrace_sessions_opened_total{protocol="whip"}', 4),
    ('millrace_sessions_failed_total{cause="no_stun"}', 99),
    ("millrace_ice_restarts_total", 7),
    ("millrace_worker_engine_started_microseconds", 40_000),
    ("not a metric{", 1),
)


def figures(slots: int = 2) -> BoxMetrics:
    rows = tuple(SlotMetrics(n, n + 1, os.getpid() if n == 0 else 0, (0.1, 0.2), ENGINE, CONTROL) for n in range(slots))
    sockets = ("127.0.0.1:7882", "[::1]:7882")
    resources, dropped = Resources(4096, 2048, 100, 1 << 30), {"master": 3, "0": 0, "1": 2, "2": 9}
    return BoxMetrics("1.2.3", 1000.5, "handover", rows, os.getppid(), resources, sockets, dropped)


def samples(page: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


async def test_engine_counters_are_summed_over_slots_and_gauges_are_not() -> None:
    found = samples(await render(figures()))
    assert found["millrace_packets_received_total", ()] == 20
    assert found["millrace_transports", (("slot", "1"),)] == 2
    assert found["millrace_drops_total", (("direction", "in"), ("reason", "srtp_replay"))] == 6
    assert found["millrace_drops_total", (("direction", "out"), ("reason", "outbox_full"))] == 2
    assert found["millrace_new_counter_total", ()] == 10


def test_distributions_are_cumulative_histograms_of_all_workers() -> None:
    page = render_now(figures())
    found = samples(page)
    assert b"# TYPE millrace_handshake_seconds histogram" in page
    buckets = {
        dict(labels)["le"]: n for (name, labels), n in found.items() if name == "millrace_handshake_seconds_bucket"
    }
    assert list(buckets.items()) == [("0.0001", 2), ("0.0025", 10), ("0.01", 14), ("+Inf", 16)]
    assert found["millrace_handshake_seconds_count", ()] == 16
    assert found["millrace_handshake_seconds_sum", ()] == 18


def test_kernel_drops_name_the_socket() -> None:
    found = {key: n for key, n in samples(render_now(figures())).items() if "kernel_drops" in key[0]}
    assert found == {
        ("millrace_kernel_drops_total", (("slot", slot), ("socket", socket))): dropped
        for slot in ("0", "1")
        for socket, dropped in (("127.0.0.1:7882", 7), ("[::1]:7882", 0))
    }


def test_lines_that_nobody_took_are_counted_for_each_process() -> None:
    found = samples(render_now(figures()))
    name = "millrace_log_lines_dropped_total"
    counted = {dict(labels)["slot"]: n for (each, labels), n in found.items() if each == name}
    assert counted == {"master": 3, "0": 0, "1": 2}


def test_what_can_run_out_is_shown_with_its_limit() -> None:
    found = samples(render_now(figures()))
    assert found["millrace_arena_resident_bytes", ()] == 2048
    assert found["millrace_session_records_limit", ()] == 100
    assert found["millrace_memory_available_bytes", ()] == 1 << 30
    assert found["millrace_process_max_fds", (("slot", "0"),)] >= found["millrace_process_open_fds", (("slot", "0"),)]


def test_controls_counters_carry_their_slot_and_failures_are_the_engines() -> None:
    found = samples(render_now(figures()))
    assert found["millrace_sessions_opened_total", (("protocol", "whip"), ("slot", "1"))] == 4
    assert found["millrace_ice_restarts_total", (("slot", "0"),)] == 7
    assert found["millrace_sessions_failed_total", (("cause", "no_stun"),)] == 2
    assert not [name for name, _ in found if "not" in name]


def test_what_control_measured_is_a_gauge_in_seconds() -> None:
    page = render_now(figures())
    assert samples(page)["millrace_worker_engine_started_seconds", (("slot", "1"),)] == 0.04
    assert b"# TYPE millrace_worker_engine_started_seconds gauge" in page


def test_processes_that_are_gone_have_no_figures_and_their_worker_is_down() -> None:
    found = samples(render_now(figures()))
    assert found["millrace_worker_up", (("slot", "0"),)] == 1
    assert found["millrace_worker_up", (("slot", "1"),)] == 0
    assert found["millrace_process_resident_bytes", (("slot", "0"),)] > 1 << 20
    assert ("millrace_process_resident_bytes", (("slot", "1"),)) not in found
    assert found["millrace_process_open_fds", (("slot", "0"),)] >= 3


def test_a_slot_that_is_empty_for_good_is_not_down_and_what_it_counted_stays() -> None:
    whole = figures(3)
    leaving, empty = replace(whole.slots[0], is_wanted=False), replace(whole.slots[1], is_wanted=False)
    found = samples(render_now(replace(whole, slots=(leaving, empty, whole.slots[2]))))
    up = {labels: value for (name, labels), value in found.items() if name == "millrace_worker_up"}
    assert up == {(("slot", "0"),): 1, (("slot", "2"),): 0}
    assert found["millrace_worker_wanted", (("slot", "0"),)] == 0
    assert found["millrace_worker_wanted", (("slot", "2"),)] == 1
    assert not [labels for _, labels in found if ("slot", "1") in labels]
    assert found["millrace_packets_received_total", ()] == 30


def test_the_number_of_series_stays_in_the_hundreds() -> None:
    assert len(samples(render_now(figures(8)))) < 300


def test_who_was_connected_and_left_without_a_word_has_not_failed() -> None:
    found = samples(render_now(figures()))
    assert found["millrace_sessions_vanished_total", ()] == 6
    failed = {dict(labels)["cause"]: value for (name, labels), value in found.items() if "sessions_failed" in name}
    assert failed == {"no_stun": 2}


def test_deaths_and_planned_replacements_are_counted_apart() -> None:
    box = figures(1)
    box = replace(box, slots=(replace(box.slots[0], incarnation=9, deaths=2, replacements=6),))
    found = samples(render_now(box))
    counted = [
        found[f"millrace_worker_{what}_total", (("slot", "0"),)] for what in ("starts", "deaths", "replacements")
    ]
    assert counted == [9, 2, 6]
