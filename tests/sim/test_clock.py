"""The Unix clock is set while calls run: by an operator, or by a machine that has just found its time server."""

import pytest

from millrace.relay.contract.commands import Attach, Detach
from millrace.relay.contract.ids import RequestId, Slot
from millrace.relay.contract.inputs import SessionAsked
from millrace.relay.contract.protocol import Protocol
from millrace.relay.membership.remote_worker import HOLD_SECONDS, SILENCE_SECONDS
from millrace.relay.session.moves import OVERLAP_SECONDS
from millrace.relay.session.pending_reports import REPORT_SECONDS
from tests.sim.box import Box, Weather

HOUR = 3600.0
YEARS = 1e8
REPORT = RequestId(1_000_000)


def played(set_by: float) -> Box:
    """Calls over three workers, before and after the clock is set."""
    box = Box(seed=11, slots=3, weather=Weather(drop=0.05, duplicate=0.05, delay=0.2))
    for slot, who in enumerate(("ann", "bob", "cid")):
        box.offer(box.lives[Slot(slot)], Protocol.WHIP, f"room{slot}", who)
    box.run(3)
    viewers = [
        box.offer(box.lives[Slot(slot)], Protocol.WHEP, f"room{room}", "v") for slot in range(3) for room in (0, 1)
    ]
    box.run(3)
    # Under way when the clock is set: a move, a report, and the patience with a dead worker.
    box.takes = 1.0
    box.move(box.lives[Slot(1)], viewers[0], Slot(1))
    box.run(0.5)
    box.give(box.lives[Slot(0)], SessionAsked(REPORT, viewers[1]))
    box.kill(Slot(2))
    box.run(0.2)
    box.clock_set_by = set_by
    box.run(max(REPORT_SECONDS, HOLD_SECONDS, OVERLAP_SECONDS) + 2)
    box.run(2 * SILENCE_SECONDS)
    return box


@pytest.fixture(scope="module")
def undisturbed() -> Box:
    return played(0.0)


def test_the_calls_are_worth_the_test(undisturbed: Box) -> None:
    assert len([command for command in undisturbed.commands if isinstance(command, Attach)]) >= 6
    assert not [command for command in undisturbed.commands if isinstance(command, Detach)]
    assert undisturbed.lives[Slot(0)].replies[REPORT].status == 504
    facts = [life.control.directory.own_facts() for life in undisturbed.lives.values()]
    assert [len(one) for one in facts] == [5, 7], "one worker tells of the viewer that moved"
    assert {fact.participant for fact in undisturbed.lives[Slot(0)].control.directory.view()} == {"ann", "bob", "v"}


@pytest.mark.parametrize("set_by", [HOUR, -HOUR, YEARS, -YEARS, SILENCE_SECONDS])
def test_setting_the_clock_changes_nothing_for_calls_that_run(undisturbed: Box, set_by: float) -> None:
    box = played(set_by)
    assert box.commands == undisturbed.commands
    for slot, life in box.lives.items():
        assert life.control.directory.view() == undisturbed.lives[slot].control.directory.view()
        assert life.engine.attached == undisturbed.lives[slot].engine.attached
        assert life.replies.get(REPORT) == undisturbed.lives[slot].replies.get(REPORT)
        assert life.control.directory.own_facts() == undisturbed.lives[slot].control.directory.own_facts()
