import os

from prometheus_client.parser import text_string_to_metric_families

from workers.metrics import Figures, SlotFigures, render, render_now

ENGINE = {
    "packets_received": 10,
    "transports": 2,
    "handshake_microseconds": 1_500_000,
    "drops.srtp_replay": 3,
    "failures.no_stun": 1,
    "new_counter": 5,
}
CONTROL = (
    ('millrace_sessions_opened_total{protocol="whip"}', 4),
    ('millrace_sessions_failed_total{cause="no_stun"}', 99),
    ("millrace_ice_restarts_total", 7),
    ("millrace_worker_engine_started_microseconds", 40_000),
    ("not a metric{", 1),
)


def figures(slots: int = 2) -> Figures:
    rows = tuple(SlotFigures(n, n + 1, os.getpid() if n == 0 else 0, (0.1, 0.2), ENGINE, CONTROL) for n in range(slots))
    return Figures("1.2.3", 1000.5, "handover", rows, os.getppid())


def samples(page: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


async def test_engine_counters_are_summed_over_slots_and_gauges_are_not() -> None:
    found = samples(await render(figures()))
    assert found["millrace_packets_received_total", ()] == 20
    assert found["millrace_handshake_seconds_total", ()] == 3
    assert found["millrace_transports", (("slot", "1"),)] == 2
    assert found["millrace_drops_total", (("reason", "srtp_replay"),)] == 6
    assert found["millrace_new_counter_total", ()] == 10


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


def test_the_number_of_series_stays_in_the_hundreds() -> None:
    assert len(samples(render_now(figures(8)))) < 300
