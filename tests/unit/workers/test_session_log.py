"""What the log says of sessions, and what it never says."""

import logging

import pytest

from millrace.relay.contract.effects import SessionEnded, SessionMoved, SessionOpened
from millrace.relay.contract.events import Outcome
from millrace.relay.contract.ids import ParticipantId, RoomName, SessionId, Slot
from millrace.relay.contract.protocol import Protocol
from millrace.workers.session_log import Logged, log_effect

SESSION = SessionId("00.0123456789abcdef0123456789abcdef")
HALL, ANN = RoomName("hall"), ParticipantId("ann")
EFFECTS: list[tuple[Logged, str]] = [
    (SessionOpened(SESSION, Protocol.WHIP, HALL, ANN), "session opened"),
    (SessionEnded(SESSION, Protocol.WHIP, HALL, ANN, "closed"), "session closed"),
    (SessionMoved(SESSION, HALL, ANN, Slot(1), Outcome.MOVED), "session move ended"),
]


@pytest.mark.parametrize(("effect", "message"), EFFECTS)
def test_a_line_has_the_beginning_of_the_sessions_id_and_never_all_of_it(
    effect: Logged, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        log_effect(effect)
    (line,) = caplog.records
    assert (line.levelno, line.message) == (logging.INFO, message)
    assert line.__dict__["session"] == SESSION[:9]
    assert SESSION not in str(line.__dict__)


def test_a_move_that_fails_is_a_detail(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        log_effect(SessionMoved(SESSION, HALL, ANN, Slot(1), Outcome.BUSY))
    assert [line.levelno for line in caplog.records] == [logging.DEBUG]
