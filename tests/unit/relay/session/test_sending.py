from typing import Any

import pytest

from millrace.relay.contract.events import PublisherHeard, PublisherSilent
from millrace.relay.contract.facts import ParticipantHere, Sending
from millrace.relay.contract.inputs import EngineSaid, RoomsAsked, Ticked
from millrace.relay.session.sending import MAX_RETURN_SECONDS, RELAPSE_SECONDS, RETURN_SECONDS
from tests.unit.adoption_kit import Recorder, adoptions, successor
from tests.unit.control_kit import Desk, body, desk, facts


class Publisher:
    """The only session of one worker."""

    def __init__(self) -> None:
        self.worker, self.recorder = desk(), Recorder()
        self.worker.publish()
        self.recorder.see(self.worker)
        (session,) = self.worker.control.sessions.all()
        self.transport = session.transport

    def falls_silent(self, after: float = 0.0) -> list[Sending]:
        self.worker.now += after
        return self._hears(EngineSaid(PublisherSilent(self.transport)))

    def is_heard(self, after: float = 0.0) -> list[Sending]:
        self.worker.now += after
        return self._hears(EngineSaid(PublisherHeard(self.transport)))

    def seconds_until_relied_on(self) -> float:
        """From now on, with a tick ten times a second."""
        waited = 0.0
        while Sending.SENDS not in self._hears(Ticked()):
            self.worker.now += 0.1
            waited += 0.1
            assert waited < 100
        return waited

    def _hears(self, said: Any) -> list[Sending]:
        self.worker.handle(said)
        self.recorder.see(self.worker)
        return [fact.sending for fact in facts(self.worker) if isinstance(fact, ParticipantHere)]


@pytest.fixture
def publisher() -> Publisher:
    return Publisher()


def test_all_workers_are_told_once_of_silence_of_the_return_and_of_its_end(publisher: Publisher) -> None:
    assert publisher.is_heard() == [], "it counts as one that sends from the start"
    assert publisher.falls_silent() == [Sending.SILENT]
    assert publisher.falls_silent() == []
    assert publisher.is_heard() == [Sending.RETURNS]
    assert publisher.is_heard() == []
    assert publisher.seconds_until_relied_on() == pytest.approx(RETURN_SECONDS, abs=0.2)


def test_who_falls_silent_again_and_again_has_to_send_for_longer_each_time(publisher: Publisher) -> None:
    waits = []
    for _ in range(7):
        publisher.falls_silent(after=5)
        publisher.is_heard(after=5)
        waits.append(publisher.seconds_until_relied_on())
    assert waits == pytest.approx([2, 4, 8, 16, 32, 32, 32], abs=0.2)
    assert max(waits) <= MAX_RETURN_SECONDS + 0.2
    publisher.falls_silent(after=RELAPSE_SECONDS + 1)
    publisher.is_heard()
    assert publisher.seconds_until_relied_on() == pytest.approx(RETURN_SECONDS, abs=0.2), "a minute is forgiven"


def test_who_pauses_while_it_returns_begins_anew(publisher: Publisher) -> None:
    publisher.falls_silent()
    publisher.is_heard()
    assert publisher.falls_silent(after=1) == [Sending.SILENT]
    publisher.is_heard(after=1)
    assert publisher.seconds_until_relied_on() == pytest.approx(2 * RETURN_SECONDS, abs=0.2)


@pytest.mark.parametrize("returns", [False, True])
def test_a_successor_goes_on_with_what_is_known(publisher: Publisher, returns: bool) -> None:
    publisher.falls_silent()
    if returns:
        publisher.is_heard()
    adopter = successor(adoptions(publisher.worker, publisher.recorder))
    announced = [fact for fact in adopter.control.directory.own_facts() if isinstance(fact, ParticipantHere)]
    assert [fact.sending for fact in announced] == [Sending.RETURNS if returns else Sending.SILENT]
    adopter.handle(EngineSaid(PublisherHeard(publisher.transport)))
    publisher.worker = adopter
    assert publisher.seconds_until_relied_on() == pytest.approx(RETURN_SECONDS, abs=0.2)


def shown(worker: Desk) -> list[bool]:
    worker.handle(RoomsAsked(worker.number(), "hall"))
    room = body(worker.reply())
    return [room["publishers"][0]["silent"], room["sessions"][0]["silent"]]


def test_rooms_and_sessions_show_who_is_silent(publisher: Publisher) -> None:
    assert shown(publisher.worker) == [False, False]
    publisher.falls_silent()
    assert shown(publisher.worker) == [True, True]
    publisher.is_heard()
    assert shown(publisher.worker) == [False, False]
