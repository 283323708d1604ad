"""How late a worker's loops are measured to be."""

import pytest

from millrace.workers.metrics.gauge import ENGINE_PAUSE_SECONDS, Gauge


def beats(gauge: Gauge, start: float, every: float, engine_age: float = 0.0, count: int = 10) -> float:
    for n in range(count):
        gauge.beat(start + n * every, engine_age)
    return start + count * every


def test_lateness_is_the_mean_of_the_later_loop() -> None:
    gauge = Gauge(0.1)
    now = beats(gauge, beats(gauge, 0.0, 0.5), 0.5)
    assert gauge.control_late() == pytest.approx(0.4, rel=0.1)
    gauge.measure()
    now = beats(gauge, now, 0.5)
    assert gauge.measure().late_seconds == pytest.approx(0.4, rel=0.1)
    for _ in range(2):
        now = beats(gauge, now, 0.1, ENGINE_PAUSE_SECONDS + 0.7)
        late = gauge.measure().late_seconds
    assert late == pytest.approx(0.7)


def test_one_hiccup_is_no_overload() -> None:
    gauge = Gauge(0.1)
    now = beats(gauge, 0.0, 0.1)
    gauge.measure()
    beats(gauge, now + 60, 0.1)
    assert gauge.measure().late_seconds < 0.05


def test_an_idle_worker_is_not_late() -> None:
    gauge = Gauge(0.1)
    now = 0.0
    for _ in range(3):
        now = beats(gauge, now, 0.1, ENGINE_PAUSE_SECONDS)
        assert gauge.measure().late_seconds < 0.001
