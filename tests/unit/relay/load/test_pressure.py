from dataclasses import replace

import pytest

from millrace.relay.config.model import Config, LimitsConfig
from millrace.relay.contract.commands import OpenTransport
from millrace.relay.contract.effects import PassOn, Reply
from millrace.relay.contract.facts import Envelope, Load
from millrace.relay.contract.ids import Incarnation
from millrace.relay.contract.inputs import Deleted, FactHeard, Measured, Offered
from millrace.relay.contract.protocol import Protocol
from millrace.relay.load.counters import Counters
from millrace.relay.load.pressure import Pressure, pressure_of
from tests.unit.control_kit import body, desk, header, session_of
from tests.unit.relay.session.test_moves import ONE, beside

WELL = Measured(0.0, 8 << 30, 10_000)
LIMITS = LimitsConfig(late_ms=250, spare_memory_bytes=1 << 20, spare_descriptors=64)


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (WELL, None),
        (replace(WELL, late_seconds=0.25), None),
        (replace(WELL, late_seconds=0.26), Pressure.LATE),
        (replace(WELL, memory_bytes=1 << 20), None),
        (replace(WELL, memory_bytes=(1 << 20) - 1), Pressure.MEMORY),
        (replace(WELL, descriptors=64), None),
        (replace(WELL, descriptors=63), Pressure.DESCRIPTORS),
        (Measured(9.0, 0, 0), Pressure.DESCRIPTORS),
    ],
)
def test_pressure_begins_past_a_bound(measured: Measured, expected: Pressure | None) -> None:
    assert pressure_of(measured, LIMITS) == expected


def test_nobody_is_let_in_while_there_is_pressure_and_who_is_there_stays() -> None:
    worker = desk(replace(Config(), limits=LIMITS))
    session = session_of(worker.publish())
    worker.handle(replace(WELL, late_seconds=1.0))
    refused = worker.watch()
    assert refused.status == 503
    assert body(refused)["type"] == "urn:millrace:problem:overloaded"
    assert int(header(refused, "Retry-After")) > 0
    assert worker.commands(OpenTransport) == []
    worker.handle(Deleted(worker.number(), session, None))
    assert worker.reply().status == 200
    worker.handle(WELL)
    assert worker.publish().status == 201


def test_a_worker_that_is_full_or_late_passes_newcomers_on_to_one_with_room() -> None:
    for limits, measured, reason in (
        (replace(LIMITS, sessions_per_worker=1), WELL, "sessions-full"),
        (LIMITS, replace(WELL, late_seconds=1.0), "overloaded"),
    ):
        worker = beside(0, worker=desk(replace(Config(), limits=limits)))
        worker.watch()
        worker.handle(measured)
        asked = Offered(worker.number(), Protocol.WHIP, "hall", None, "v=0", None)
        worker.handle(asked)
        (passed_on,) = worker.all(PassOn)
        assert (passed_on.request, passed_on.slot) == (asked.request, ONE)
        assert passed_on.otherwise is not None
        assert body(passed_on.otherwise)["type"] == f"urn:millrace:problem:{reason}"
        assert worker.all(Reply) == []


def test_nobody_is_passed_on_for_what_the_machine_lacks_nor_to_one_that_is_short_too() -> None:
    full, late = Load(1, 0, 0, ()), Load(0, 0, 0, (("millrace_control_late_microseconds", 200_000),))
    for other, measured in (
        (Load(0, 0, 0, ()), replace(WELL, memory_bytes=0)),
        (Load(0, 0, 0, ()), replace(WELL, descriptors=0)),
        (full, WELL),
        (late, WELL),
    ):
        worker = beside(0, worker=desk(replace(Config(), limits=replace(LIMITS, sessions_per_worker=1))))
        worker.handle(FactHeard(Envelope(ONE, Incarnation(1), 1, other)))
        worker.watch()
        worker.handle(measured)
        assert worker.watch().status == 503, "and it was not passed on"
        assert worker.all(PassOn) == []


def test_who_is_turned_away_is_counted_by_what_was_short() -> None:
    counters = Counters()
    counters.session_rejected(Pressure.MEMORY)
    found = {name: n for name, n in counters.values.items() if "sessions_rejected" in name}
    assert found == {
        f'millrace_sessions_rejected_total{{pressure="{name}"}}': n
        for name, n in (("descriptors", 0), ("memory", 1), ("late", 0))
    }
