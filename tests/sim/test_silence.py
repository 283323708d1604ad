"""Publishers that fall silent and come back, on workers that hear of it late, twice or never at first: all of them show
their viewers the same one, and one that sends.
"""

import pytest

from millrace.relay.contract.events import PublisherHeard, PublisherSilent
from millrace.relay.contract.facts import ParticipantHere, Sending
from millrace.relay.contract.ids import SessionId, Slot
from millrace.relay.contract.inputs import EngineSaid
from millrace.relay.contract.protocol import Protocol
from millrace.relay.session.moves import OVERLAP_SECONDS
from millrace.relay.session.sending import MAX_RETURN_SECONDS, RETURN_SECONDS
from tests.sim.box import Box, Weather
from tests.sim.test_membership import STORM, check

SLOTS = 4


class Hall:
    """A publisher in each of the first three slots, in this order, and a viewer in every slot."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.publishers = []
        for slot in range(3):
            self.publishers.append(box.offer(box.lives[Slot(slot)], Protocol.WHIP, "hall", f"publisher-{slot}"))
            box.run(0.1)
        for slot in range(SLOTS):
            box.offer(box.lives[Slot(slot)], Protocol.WHEP, "hall", f"viewer-{slot}")
        self.silent: set[int] = set()

    def falls_silent(self, publisher: int) -> None:
        self.silent.add(publisher)
        self._tell(publisher, PublisherSilent)

    def is_heard(self, publisher: int) -> None:
        self.silent.discard(publisher)
        self._tell(publisher, PublisherHeard)

    def repeat(self) -> None:
        """Engines that adopted say anew what they find."""
        for publisher in range(3):
            self._tell(publisher, PublisherSilent if publisher in self.silent else PublisherHeard)

    def _tell(self, publisher: int, event: type[PublisherSilent] | type[PublisherHeard]) -> None:
        # On its way to another slot it is in no engine, and for a moment afterwards two controls know it.
        for life in self.box.lives.values():
            session = life.control.sessions.get(SessionId(self.publishers[publisher]))
            if session is not None and session.transport in life.engine.transports:
                self.box.give(life, EngineSaid(event(session.transport)))

    def shown(self) -> set[int | None]:
        """The publishers that any viewer is shown."""
        found: set[int | None] = set()
        tracks = {
            publication.publication: self.publishers.index(publication.session)
            for life in self.box.lives.values()
            for session in life.control.sessions.all()
            for publication in session.publications.values()
        }
        for life in self.box.lives.values():
            for session in life.control.sessions.all():
                found |= {None if one.publication is None else tracks.get(one.publication) for one in session.receiving}
        return found


@pytest.mark.parametrize("seed", range(10))
def test_viewers_of_all_workers_leave_a_silent_publisher_and_come_back_to_it_in_order(seed: int) -> None:
    box = Box(seed, slots=SLOTS)
    box.run(2.0)
    hall = Hall(box)
    box.run(1.0)
    assert hall.shown() == {0}
    hall.falls_silent(0)
    box.run(0.1)
    assert hall.shown() == {1}
    hall.falls_silent(1)
    box.run(0.1)
    assert hall.shown() == {2}
    # Back, but not yet for long enough.
    hall.is_heard(0)
    box.run(RETURN_SECONDS - 0.5)
    assert hall.shown() == {2}
    box.run(2.0)
    assert hall.shown() == {0}
    # Nobody is left who sends: the first packet of anybody is shown at once.
    hall.falls_silent(0)
    hall.falls_silent(2)
    box.run(0.1)
    assert hall.shown() == {0}
    hall.is_heard(2)
    box.run(0.1)
    assert hall.shown() == {2}
    hall.is_heard(1)
    box.run(0.1)
    assert hall.shown() == {1}


@pytest.mark.parametrize("seed", range(10))
def test_who_only_pauses_does_not_draw_the_viewers_to_and_fro(seed: int) -> None:
    box = Box(seed, slots=SLOTS)
    box.run(2.0)
    hall = Hall(box)
    box.run(1.0)
    changes, before = 0, hall.shown()
    for _ in range(120):
        hall.falls_silent(0)
        box.run(2.0)
        hall.is_heard(0)
        for _ in range(6):
            box.run(0.5)
            changes, before = changes + (hall.shown() != before), hall.shown()
    assert before == {1}
    assert changes <= 8, "in ten minutes"


@pytest.mark.parametrize("seed", range(25))
def test_after_deaths_moves_and_a_bus_that_loses_facts_all_show_one_that_sends(seed: int) -> None:
    box = Box(seed, slots=SLOTS, weather=STORM)
    box.takes = 1.0
    box.run(2.0)
    box.weather = Weather()
    hall = Hall(box)
    box.weather = STORM
    for _ in range(60):
        publisher = box.chance.randrange(3)
        match box.chance.randrange(6):
            case 0 | 1:
                hall.falls_silent(publisher)
            case 2 | 3:
                hall.is_heard(publisher)
            case 4:
                by = box.lives[box.chance.choice(sorted(box.lives))]
                box.move(by, hall.publishers[publisher], Slot(box.chance.randrange(SLOTS)))
            case 5:
                slot = box.chance.choice(sorted(box.lives))
                box.kill(slot)
                box.spawn(slot, adopts=True)
                box.run(0.3)
                hall.repeat()
        box.run(box.chance.expovariate(2))
    box.weather = Weather()
    box.run(OVERLAP_SECONDS + 5.0)
    hall.repeat()
    box.run(MAX_RETURN_SECONDS + 5.0)
    check(box)
    living = [number for number in range(3) if box.holder(hall.publishers[number]) is not None]
    sending = [number for number in living if number not in hall.silent]
    assert hall.shown() == {min(sending or living)}
    for life in box.lives.values():
        facts = [fact for fact in life.control.directory.view() if isinstance(fact, ParticipantHere) and fact.publishes]
        for fact in facts:
            expected = Sending.SILENT if hall.publishers.index(fact.session) in hall.silent else Sending.SENDS
            assert fact.sending is expected
