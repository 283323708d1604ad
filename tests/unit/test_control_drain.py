from control_kit import body, desk, header, moment, session_of

from relay.commands import CloseTransport
from relay.effects import Deleted, DrainBegan


def test_a_draining_worker_lets_nobody_in_and_keeps_who_is_there() -> None:
    worker = desk()
    session = session_of(worker.publish())
    assert worker.handle(DrainBegan()) == []
    refused = worker.watch()
    assert refused.status == 503
    assert body(refused)["type"] == "urn:millrace:problem:draining"
    assert int(header(refused, "Retry-After")) > 0
    assert len(worker.control.sessions) == 1
    worker.handle(Deleted(worker.number(), session, None))
    assert worker.reply().status == 200
    assert len(worker.control.sessions) == 0


def test_sessions_that_are_left_are_closed_towards_their_clients() -> None:
    worker = desk()
    worker.publish()
    worker.watch()
    worker.handle(DrainBegan())
    worker.effects = worker.control.drain(moment(worker.now))
    assert len(worker.commands(CloseTransport)) == 2
