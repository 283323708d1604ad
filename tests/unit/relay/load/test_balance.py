"""A worker that is late gives sessions to one that is better off, seldom and not to and fro."""

import pytest

from millrace.relay.config.model import Config, LimitsConfig, WorkersConfig
from millrace.relay.contract.commands import MoveTransport
from millrace.relay.contract.events import MoveDone, Outcome, TransportConnected
from millrace.relay.contract.facts import Envelope, Load
from millrace.relay.contract.ids import Incarnation
from millrace.relay.contract.inputs import EngineSaid, FactHeard, Measured, SlotsClosed
from millrace.relay.load.balance import LATE_SECONDS, REST_SECONDS, STAY_SECONDS
from tests.unit.control_kit import Desk, desk, moment
from tests.unit.relay.session.test_moves import ONE, beside

CONFIG = Config(workers=WorkersConfig(balance=True), limits=LimitsConfig(late_ms=100))
LATE, WELL = Measured(0.08, 1 << 40, 10_000), Measured(0.001, 1 << 40, 10_000)
"""Late, but not so late that nobody is let in."""


def crowded(config: Config = CONFIG, others: int = 5, late_us: int = 0) -> Desk:
    """Twenty connected viewers, and another worker that has some."""
    worker = beside(others, worker=desk(config))
    counters = (("millrace_control_late_microseconds", late_us),)
    worker.handle(FactHeard(Envelope(ONE, Incarnation(1), 1, Load(others, 0, 0, counters))))
    for _ in range(20):
        worker.watch()
        session = worker.control.sessions.all()[-1]
        worker.handle(EngineSaid(TransportConnected(session.transport, "AEAD_AES_128_GCM", "DTLSv1.2", 1)))
    return worker


def given(worker: Desk, measured: Measured, seconds: int) -> list[MoveTransport]:
    found = []
    for _ in range(seconds):
        worker.now += 1
        worker.handle(measured)
        found += worker.commands(MoveTransport)
        for command in worker.commands(MoveTransport):
            worker.handle(EngineSaid(MoveDone(command.transport, command.slot, Outcome.MOVED)))
    return found


def test_a_tenth_goes_after_some_seconds_of_lateness_and_the_next_after_a_rest() -> None:
    worker = crowded()
    assert given(worker, LATE, LATE_SECONDS - 1) == []
    assert given(worker, WELL, 1) + given(worker, LATE, LATE_SECONDS - 1) == [], "one good second, and it begins anew"
    first = given(worker, LATE, 1)
    assert [command.slot for command in first] == [ONE, ONE]
    assert given(worker, LATE, int(REST_SECONDS) - 1) == []
    assert len(given(worker, LATE, 2)) == 2
    assert worker.control.counters.values["millrace_sessions_balanced_total"] == 4


@pytest.mark.parametrize(
    "worker",
    [
        crowded(Config(limits=LimitsConfig(late_ms=100))),
        crowded(others=18),
        crowded(late_us=50_000),
    ],
    ids=["not asked for", "as many there", "as late there"],
)
def test_nothing_goes_where_nothing_is_gained(worker: Desk) -> None:
    assert given(worker, LATE, 3 * LATE_SECONDS) == []


def test_nothing_goes_to_a_slot_that_is_to_be_empty() -> None:
    worker = crowded()
    worker.handle(SlotsClosed(frozenset({ONE})))
    assert given(worker, LATE, 3 * LATE_SECONDS) == []


def test_a_session_that_came_lately_is_not_given_on() -> None:
    worker = crowded()
    for session in worker.control.sessions.all():
        session.arrived_at = moment(worker.now).steady
    assert given(worker, LATE, 3 * LATE_SECONDS) == []
    worker.now += STAY_SECONDS
    assert len(given(worker, LATE, LATE_SECONDS)) == 2
