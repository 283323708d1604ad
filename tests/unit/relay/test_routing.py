"""Whose session a request is for, and where the request goes."""

import pytest

from millrace.relay.contract.effects import PassOn
from millrace.relay.contract.ids import RequestId, Slot
from millrace.relay.contract.inputs import Deleted, Patched, SessionAsked, SlotChanged, Ticked
from millrace.relay.membership.remote_worker import HOLD_SECONDS
from tests.unit.control_kit import body, desk, session_of, told

FRAGMENT = "a=end-of-candidates\r\n"


@pytest.mark.parametrize(
    "session",
    [
        "",
        "00",
        "zz." + "a" * 22,
        "00." + "a" * 21,
        "00." + "a" * 22,
        "07." + "a" * 22,
        "FF." + "a" * 22,
        "../../x",
        "00." + "é" * 22,
    ],
)
def test_a_foreign_session_is_unknown(session: str) -> None:
    worker = desk()
    for asked in (
        Patched(worker.number(), session, None, "*", FRAGMENT),
        Deleted(worker.number(), session, None),
        SessionAsked(worker.number(), session),
    ):
        worker.handle(asked)
        assert worker.effects == [worker.reply()]
        assert (worker.reply().status, body(worker.reply())["title"]) == (404, "session unknown")


def test_a_request_for_another_living_workers_session_is_passed_on() -> None:
    one, two = desk(slot=0), desk(slot=1)
    session = session_of(one.publish())
    told(one, two)
    for asked in (
        Patched(two.number(), session, None, "*", FRAGMENT),
        Deleted(two.number(), session, None),
        SessionAsked(two.number(), session),
    ):
        two.handle(asked)
        assert two.effects == [PassOn(asked.request, Slot(0))]


def test_a_request_for_a_dead_workers_session_is_refused() -> None:
    one, two = desk(slot=0), desk(slot=1)
    session = session_of(one.publish())
    told(one, two)
    two.handle(SlotChanged(Slot(0), None))
    two.now += HOLD_SECONDS
    two.handle(Ticked())
    two.handle(Deleted(two.number(), session, None))
    assert two.reply().status == 404


def test_a_request_for_a_dead_workers_session_waits_for_the_successor() -> None:
    one, two = desk(slot=0), desk(slot=1)
    session = session_of(one.publish())
    told(one, two)
    two.handle(SlotChanged(Slot(0), None))
    two.handle(Deleted(two.number(), session, None))
    assert two.effects == [PassOn(RequestId(two.requests), Slot(0))]


def test_a_passed_on_request_that_its_owner_does_not_know_goes_no_further() -> None:
    one, two = desk(slot=0), desk(slot=1)
    one.handle(Ticked())
    told(one, two)
    one.handle(Deleted(one.number(), "00." + "a" * 22, None))
    assert one.reply().status == 404
