import json
from dataclasses import replace

import pytest

from millrace.master.operator.status import Look, parse, run
from millrace.master.operator.status_table import as_json, table

PAGE = """\
# HELP millrace_worker_up 1 while the slot has a worker
# TYPE millrace_worker_up gauge
millrace_worker_up{slot="0"} 1.0
millrace_worker_up{slot="10"} 0.0
millrace_worker_up{slot="2"} 1.0
millrace_worker_wanted{slot="0"} 1.0
millrace_worker_wanted{slot="10"} 1.0
millrace_worker_wanted{slot="2"} 0.0
millrace_worker_beat_age_seconds{loop="engine",slot="0"} 0.01
millrace_worker_beat_age_seconds{loop="control",slot="0"} 0.25
millrace_transports{slot="0"} 7.0
millrace_bytes_sent_total 1.0e+06
millrace_drops_total{reason="srtp_replay"} 4.0
millrace_drops_total{reason="no_key"} 6.0
millrace_start_time_seconds 1.7e+09
millrace_forwarding_seconds_bucket{le="0.001"} 100.0
millrace_forwarding_seconds_bucket{le="0.0025"} 130.0
millrace_forwarding_seconds_bucket{le="+Inf"} 130.0
millrace_kernel_drops_total{slot="0",socket="127.0.0.1:7882"} 5.0
millrace_kernel_drops_total{slot="2",socket="127.0.0.1:7882"} 1.0
"""


def looks(page: str = PAGE, rooms: int = 0) -> tuple[Look, Look]:
    named = [
        {"name": f"room-{n}", "participants": n, "publishers": [{}] * (n > 0), "viewers": max(0, n - 1)}
        for n in range(rooms)
    ]
    worker = {"packets_in": 100, "packets_out": 1000, "drops": 1, "kernel_drops": 5, "control_late_ms": 1.25}
    late = {"engine_late_us": {"100": 900, "250": 0, "1000": 7, "inf": 0, "sum": 9_000}}
    before = Look(100.0, parse(page), named, {"0": worker | late})
    later = dict(before.metrics)
    later["millrace_bytes_sent_total", frozenset()] += 250_000
    later["millrace_drops_total", frozenset({("reason", "no_key")})] += 3
    for le, more in (("0.001", 60), ("0.0025", 100), ("+Inf", 100)):
        later["millrace_forwarding_seconds_bucket", frozenset({("le", le)})] += more
    more = {"packets_in": 120, "packets_out": 3000, "drops": 4, "kernel_drops": 6}
    late = {"engine_late_us": {"100": 901, "250": 99, "1000": 7, "inf": 0, "sum": 20_000}}
    return before, Look(102.0, later, named, {"0": worker | more | late})


def test_page_is_read_with_labels_in_any_order() -> None:
    look = Look(0, parse(PAGE), [])
    assert look.get("millrace_worker_beat_age_seconds", slot="0", loop="control") == 0.25
    assert look.get("millrace_bytes_sent_total") == 1e6
    assert look.get("millrace_unheard_of", slot="0") == 0
    assert look.slots() == ["0", "2", "10"]


def test_table_shows_rates_and_the_later_of_two_loops() -> None:
    lines = table(*looks()).splitlines()
    assert lines[0].startswith("Millrace is serving")
    assert next(line for line in lines if line.startswith("  out")).split()[1:3] == ["1.0", "Mbit/s"]
    assert "drops 1.5/s" in next(line for line in lines if "drops" in line)
    (first,) = [line.split() for line in lines if line.split()[:2] == ["0", "up"]]
    assert first[2] == "7"
    assert first[5:8] == ["10.0", "1,000", "2.0"], "in, out, drops of the worker and of its sockets"
    assert first[8] == "1.2", "the later of engine and control plane"
    assert max(map(len, lines)) <= 80
    assert [line.split()[1] for line in lines if line.split()[:1] == ["10"]] == ["DOWN"]
    assert [line.split()[1] for line in lines if line.split()[:1] == ["2"]] == ["leaves"]
    assert lines[-1] == "no rooms"


def test_no_line_is_longer_than_a_terminal_with_large_numbers() -> None:
    before, now = looks(rooms=20)
    workers = {"0": dict.fromkeys(("packets_in", "packets_out", "drops", "kernel_drops", "control_late_ms"), 10**6)}
    metrics = {key: 10.0**5 if key[0] != "millrace_worker_up" else 1.0 for key in now.metrics}
    assert max(map(len, table(before, replace(now, workers=workers, metrics=metrics)).splitlines())) <= 80
    assert max(map(len, table(before, now).splitlines())) <= 80


def test_json_has_what_the_table_has() -> None:
    view = json.loads(as_json(*looks(rooms=2)))
    assert view["state"] == "serving"
    assert view["per_second"]["drops"] == 1.5
    worker = view["workers"][0]
    assert (worker["slot"], worker["state"], worker["sessions"], worker["packets_out"]) == (0, "up", 7, 1000)
    assert (worker["engine_late_ms"], worker["control_late_ms"], worker["last_beat_ms"]) == (0.25, 1.25, 250)
    assert [room["name"] for room in view["rooms"]] == ["room-0", "room-1"]


def test_histograms_give_the_bounds_of_their_quantiles_since_the_last_look() -> None:
    before, now = looks()
    assert "forwarded within 1 and 2.5 ms" in table(before, now)
    assert "forwarded within -" in table(now, now), "nothing since"
    assert "handshakes 0.0/s within -" in table(before, now)


def test_series_of_a_name_are_added_up() -> None:
    assert looks()[0].sum("millrace_kernel_drops_total") == 6


def test_counters_of_a_restarted_server_make_no_negative_rate() -> None:
    before, now = looks()
    assert " 0.0 bit/s" in table(replace(now, at=100.0), replace(before, at=101.0))


def test_largest_rooms_come_first_and_the_rest_is_counted() -> None:
    lines = table(*looks(rooms=20)).splitlines()
    shown = [line.split()[:2] for line in lines if line.startswith("room-")]
    assert shown[0] == ["room-19", "19"]
    assert len(shown) == 15
    assert lines[-1] == "and 5 more"


def test_drain_is_seen() -> None:
    assert table(*looks(PAGE + 'millrace_drain_deadline_seconds{slot="2"} 9e9\n')).startswith(
        "Millrace is draining for"
    )


def test_nobody_there_is_said_and_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("http://127.0.0.1:1", once=True, as_json=False, show=table) == 1
    assert "does not answer" in capsys.readouterr().err
