"""Sessions move between workers, whatever the bus loses and whoever dies, and nobody who watches them is detached."""

from dataclasses import replace

import pytest

from millrace.relay.config.model import LimitsConfig, WorkersConfig
from millrace.relay.contract.events import TransportConnected
from millrace.relay.contract.ids import Slot
from millrace.relay.contract.inputs import EngineSaid, Measured, MoveAll, SlotsClosed
from millrace.relay.contract.protocol import Protocol
from millrace.relay.session.moves import OVERLAP_SECONDS
from tests.sim.box import CONFIG, Box, Weather
from tests.sim.test_membership import FAILED_SEEDS, ROOMS, STORM, act, check, standing


def hall(box: Box, slots: int) -> list[str]:
    """A publisher and a viewer of each room in every slot."""
    sessions = []
    for slot in range(slots):
        life = box.lives[Slot(slot)]
        sessions.append(box.offer(life, Protocol.WHIP, ROOMS[slot % 2], f"publisher-{slot}"))
        sessions += [box.offer(life, Protocol.WHEP, room, f"viewer-{slot}-{room}") for room in ROOMS]
        box.run(0.1)
    return sessions


def feedings(box: Box) -> int:
    return sum(life.engine.feedings for life in box.lives.values())


@pytest.mark.parametrize("seed", [*range(25), *FAILED_SEEDS])
def test_membership_converges_after_a_storm_with_moves(seed: int) -> None:
    box = Box(1000 + seed, slots=4, weather=STORM)
    sessions: list[str] = []
    for _ in range(200):
        act(box, sessions, moves=True)
        box.run(box.chance.expovariate(5))
    for slot in sorted(set(box.incarnations) - set(box.lives)):
        box.spawn(slot)
    for life in box.lives.values():
        box.offer(life, Protocol.WHIP, "hall", f"last-{life.slot}")
        box.offer(life, Protocol.WHEP, "hall", "last", watches="last-1")
    box.run(0.3)
    box.weather = Weather()
    box.run(OVERLAP_SECONDS + 5.0)
    check(box)


@pytest.mark.parametrize("delay", [0.002, 0.5])
@pytest.mark.parametrize("seed", range(10))
def test_nobody_who_watches_is_detached_when_sessions_move(seed: int, delay: float) -> None:
    """However the bus orders what giver and taker say."""
    box = Box(seed, slots=4, weather=Weather(delay=delay))
    box.takes = 1.0
    box.run(2.0)
    sessions = hall(box, 4)
    box.run(2.0)
    fed, facts = feedings(box), standing(box)
    for _ in range(40):
        session = box.chance.choice(sessions)
        by = box.chance.choice([box.lives[slot] for slot in sorted(box.lives)])
        box.move(by, session, Slot(box.chance.randrange(4)))
        box.run(box.chance.choice([0.01, 0.3, 1.5]))
        assert all(life.control.directory.view() == facts for life in box.lives.values())
    box.run(OVERLAP_SECONDS + 2.0)
    assert feedings(box) == fed
    assert standing(box) == facts
    check(box)
    for session in sessions:
        by = box.chance.choice([box.lives[slot] for slot in sorted(box.lives)])
        assert box.delete(by, session) == 200
    box.run(1.0)
    assert standing(box) == frozenset()
    assert all(not life.engine.transports for life in box.lives.values())


@pytest.mark.parametrize("seed", range(10))
def test_a_slot_empties_itself_evenly_and_stays_empty(seed: int) -> None:
    box = Box(seed, slots=4)
    box.run(2.0)
    sessions = hall(box, 4) + [box.offer(box.lives[Slot(0)], Protocol.WHEP, "hall", f"crowd-{n}") for n in range(40)]
    box.run(1.5)
    for life in box.lives.values():
        box.give(life, SlotsClosed(frozenset({Slot(0)})))
    # Every fifth gift comes back, for one reason or another, and is tried again.
    for _ in range(80):
        box.give(box.lives[Slot(0)], MoveAll())
        box.run(0.1)
    assert box.lives[Slot(0)].control.is_empty
    counts = [len(box.lives[Slot(slot)].control.sessions) for slot in (1, 2, 3)]
    assert sum(counts) == len(sessions)
    assert max(counts) - min(counts) <= 2
    box.run(OVERLAP_SECONDS + 2.0)
    check(box)
    # A client that comes to the empty slot is let in by another.
    request = box.offer_at(box.lives[Slot(0)], Protocol.WHEP, "hall", "late")
    assert request.status == 201
    assert box.lives[Slot(0)].control.is_empty


@pytest.mark.parametrize("seed", range(10))
def test_a_session_answers_through_any_worker_wherever_it_is_even_when_its_first_slot_is_dead(seed: int) -> None:
    box = Box(seed, slots=3)
    box.takes = 1.0
    box.run(2.0)
    session = box.offer(box.lives[Slot(0)], Protocol.WHIP, "hall", "ann")
    for to in (1, 2, 0, 1):
        box.move(box.lives[Slot(2)], session, Slot(to))
        box.run(0.5)
        holder = box.holder(session)
        assert holder is not None
        assert holder.slot == to
    box.kill(Slot(0))
    box.run(OVERLAP_SECONDS + 2)
    assert box.delete(box.lives[Slot(2)], session) == 200
    box.run(0.5)
    assert standing(box) == frozenset()


@pytest.mark.parametrize("seed", range(5))
def test_a_late_worker_is_relieved_and_sessions_do_not_go_to_and_fro(seed: int) -> None:
    limits = LimitsConfig(late_ms=100)
    box = Box(seed, slots=3, config=replace(CONFIG, workers=WorkersConfig(balance=True), limits=limits))
    box.takes = 1.0
    box.run(2.0)
    for slot, count in ((0, 60), (1, 20), (2, 20)):
        for number in range(count):
            box.offer(box.lives[Slot(slot)], Protocol.WHEP, "hall", f"viewer-{slot}-{number}")
    for life in box.lives.values():
        for session in life.control.sessions.all():
            box.give(life, EngineSaid(TransportConnected(session.transport, "AEAD_AES_128_GCM", "DTLSv1.2", 1)))
    moves = 0
    for _ in range(600):
        before = [len(life.control.sessions) for life in box.lives.values()]
        for life in box.lives.values():
            # Over 45 sessions are too many for any worker, and now and then one is late for no reason.
            late = len(life.control.sessions) > 45 or box.chance.random() < 0.2
            box.give(life, Measured(0.08 if late else 0.001, 1 << 40, 10_000))
        box.run(1.0)
        after = [len(life.control.sessions) for life in box.lives.values()]
        moves += sum(abs(one - other) for one, other in zip(before, after, strict=True)) // 2
    assert max(after) <= 45
    assert sum(after) == 100
    assert moves <= 20, "17 are enough"
    box.run(OVERLAP_SECONDS + 2)
    check(box)


@pytest.mark.parametrize("seed", range(20))
def test_a_session_that_is_deleted_on_its_way_ends(seed: int) -> None:
    box = Box(seed, slots=2)
    box.run(2.0)
    session = box.offer(box.lives[Slot(0)], Protocol.WHIP, "hall", "ann")
    box.offer(box.lives[Slot(1)], Protocol.WHEP, "hall", "bob")
    box.run(0.5)
    box.move(box.lives[Slot(0)], session, Slot(1))
    by = box.lives[Slot(seed % 2)]
    if seed % 4 < 2:
        box.delete(by, session)
    else:
        # Her newer session replaces the one that is between two slots.
        box.offer(by, Protocol.WHIP, "hall", "ann")
    box.run(OVERLAP_SECONDS + 2)
    assert box.holder(session) is None
    check(box)


@pytest.mark.parametrize("weather", [Weather(), Weather(delay=0.5)], ids=["calm", "late"])
@pytest.mark.parametrize("seed", range(10))
def test_workers_leave_and_come_back_and_nobody_who_watches_is_detached(seed: int, weather: Weather) -> None:
    box = Box(seed, slots=4)
    box.takes = 1.0
    box.run(2.0)
    sessions = hall(box, 4)
    box.run(2.0)
    fed, facts = feedings(box), standing(box)
    box.weather = weather
    for _ in range(3):
        for life in box.lives.values():
            box.give(life, SlotsClosed(frozenset({Slot(3)})))
        while not box.lives[Slot(3)].control.is_done:
            box.give(box.lives[Slot(3)], MoveAll())
            box.run(0.1)
        # What is counted there goes with it.
        fed -= box.lives[Slot(3)].engine.feedings
        box.retire(Slot(3))
        # At once, and not when somebody has waited for a successor in vain.
        box.run(0.2)
        for life in box.lives.values():
            assert Slot(3) not in life.control.loads()
        box.run(3.0)
        assert standing(box) == facts
        box.spawn(Slot(3))
        for life in box.lives.values():
            box.give(life, SlotsClosed(frozenset()))
        box.run(3.0)
        mine = box.chance.sample(sessions, 4)
        for session in mine:
            by = box.holder(session)
            assert by is not None
            box.move(by, session, Slot(3))
        box.run(3.0)
    box.weather = Weather()
    box.run(OVERLAP_SECONDS + 3.0)
    check(box)
    assert standing(box) == facts
    assert feedings(box) == fed
