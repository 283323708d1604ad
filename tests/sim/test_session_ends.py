"""Whoever is asked for a session that is over names the one cause, wherever it was and whoever has died since."""

import pytest

from millrace.relay.contract.events import Cause, TransportClosed
from millrace.relay.contract.ids import Slot
from millrace.relay.contract.inputs import EngineSaid, RoomDeleted
from millrace.relay.contract.protocol import Protocol
from tests.sim.box import Box, Life, Weather
from tests.unit.control_kit import body


def moved_by(box: Box, seconds: float) -> str:
    """A publisher that slot 0 opened and slot 1 has had for so long."""
    box.takes = 1.0
    box.run(2.0)
    session = box.offer(box.lives[Slot(0)], Protocol.WHIP, "hall", "ann")
    box.run(0.3)
    box.move(box.lives[Slot(2)], session, Slot(1))
    box.run(seconds)
    return session


def fails(box: Box, session: str) -> None:
    """Its client is not heard of any more."""
    life = box.holder(session)
    assert life is not None
    (transport,) = (one.transport for one in life.control.sessions.all() if one.id == session)
    life.engine.close(transport)
    box.give(life, EngineSaid(TransportClosed(transport, Cause.CONSENT_LOST)))


def causes(box: Box, session: str) -> set[str]:
    """As every worker that lives tells it."""
    replies = [box.ask(life, session) for life in box.lives.values()]
    assert all(reply is not None and reply.status == 200 for reply in replies), replies
    return {body(reply)["cause"] for reply in replies if reply is not None}


def title(box: Box, by: Life, session: str) -> str:
    """Of the problem that its client is told."""
    reply = box.patch(by, session)
    assert reply is not None
    assert reply.status == 404
    return str(body(reply)["title"])


@pytest.mark.parametrize("seconds", [0.5, 5.0], ids=["just now", "long ago"])
@pytest.mark.parametrize("seed", range(5))
def test_a_session_that_moved_and_failed_has_one_cause_at_all_workers(seed: int, seconds: float) -> None:
    box = Box(seed)
    session = moved_by(box, seconds)
    fails(box, session)
    box.run(0.05)
    assert causes(box, session) == {"consent_lost"}
    box.run(10.0)
    assert causes(box, session) == {"consent_lost"}
    assert {title(box, life, session) for life in box.lives.values()} == {"session unknown"}


@pytest.mark.parametrize("seed", range(5))
def test_a_client_whose_session_moved_and_was_replaced_is_told_so_by_all_workers(seed: int) -> None:
    box = Box(seed)
    old = moved_by(box, 0.5)
    box.run(box.chance.choice([0.0, 5.0]))
    newer = box.offer(box.lives[Slot(3)], Protocol.WHIP, "hall", "ann")
    box.run(0.2)
    assert {title(box, life, old) for life in box.lives.values()} == {"session replaced"}
    assert causes(box, old) == {"replaced"}
    assert box.holder(newer) is not None


@pytest.mark.parametrize("seed", range(5))
def test_an_end_is_known_after_every_worker_was_replaced_one_by_one(seed: int) -> None:
    box = Box(seed)
    session = moved_by(box, 5.0)
    fails(box, session)
    box.run(0.2)
    for slot in box.chance.sample(sorted(box.lives), 4):
        box.kill(slot)
        box.run(0.4)
        box.spawn(slot, adopts=True)
        box.run(1.5)
    assert causes(box, session) == {"consent_lost"}


@pytest.mark.parametrize("seed", range(5))
def test_an_end_is_known_when_who_opened_the_session_and_who_had_it_die_at_once(seed: int) -> None:
    box = Box(seed)
    session = moved_by(box, 5.0)
    fails(box, session)
    box.run(0.05)
    for slot in (Slot(0), Slot(1)):
        box.kill(slot)
    assert causes(box, session) == {"consent_lost"}
    box.run(0.4)
    for slot in (Slot(0), Slot(1)):
        box.spawn(slot, adopts=True)
    box.run(2.0)
    assert causes(box, session) == {"consent_lost"}


@pytest.mark.parametrize("seed", range(5))
def test_many_ends_at_once_are_known_everywhere_within_some_seconds(seed: int) -> None:
    box = Box(seed, slots=2)
    box.run(2.0)
    sessions = [box.offer(box.lives[Slot(0)], Protocol.WHEP, "hall", f"viewer-{number}") for number in range(300)]
    box.run(0.5)
    box.give(box.lives[Slot(1)], RoomDeleted(box.number(), "hall"))
    box.run(4.0)
    assert {cause for session in sessions for cause in causes(box, session)} == {"room_deleted"}


@pytest.mark.parametrize("seed", range(5))
def test_a_session_that_lives_is_found_whatever_has_ended(seed: int) -> None:
    """Over a bus that is late: ends and facts come in any order."""
    box = Box(seed, weather=Weather(delay=0.5))
    sessions = [moved_by(box, 5.0)]
    for number in range(30):
        life = box.lives[Slot(box.chance.randrange(4))]
        sessions.append(box.offer(life, Protocol.WHIP, "hall", f"guest-{number}"))
        box.run(0.5)
        box.move(life, box.chance.choice(sessions), Slot(box.chance.randrange(4)))
        box.run(1.0)
        fails(box, sessions.pop(box.chance.randrange(len(sessions))))
    box.run(5.0)
    for session in sessions:
        assert box.delete(box.lives[Slot(box.chance.randrange(4))], session) == 200
        box.run(0.05)
        assert causes(box, session) == {"deleted_by_admin"}
