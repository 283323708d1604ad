"""How much is remembered of sessions that are over, and how much of it is told."""

from dataclasses import replace

from millrace.relay.contract.effects import AskEnds, SessionEnded, TellEnds
from millrace.relay.contract.ids import Incarnation, ParticipantId, RoomName, SessionId, Slot
from millrace.relay.contract.inputs import Deleted, EndsHeard, SlotChanged, Ticked
from millrace.relay.contract.protocol import Protocol
from millrace.relay.contract.tombstone import Tombstone
from millrace.relay.membership.tombstones import (
    ASKED,
    ENDS_A_MESSAGE,
    MAX_HEARD,
    MAX_TOMBSTONES,
    MESSAGES_A_SECOND,
    RECENT,
    TOMBSTONE_SECONDS,
    Tombstones,
)
from tests.unit.control_kit import NOW, Desk, desk, moment, offer, session_of


def tombstone(number: int, cause: str = "deleted", until: float | None = None) -> Tombstone:
    session = SessionId(f"00.{number:022}")
    until = float(number) if until is None else until
    return Tombstone(session, Protocol.WHEP, RoomName("hall"), ParticipantId("ann"), 1.0, 2.0, cause, until)


def beside(slots: int = 2, slot: int = 0) -> Desk:
    """A Control that knows of others."""
    worker = desk(slot=slot)
    for other in range(slots):
        if other != slot:
            worker.handle(SlotChanged(Slot(other), Incarnation(1)))
    return worker


def test_what_others_tell_is_bounded_and_pushes_out_nothing_of_ours() -> None:
    ends = Tombstones()
    for number in range(MAX_TOMBSTONES + 1):
        ends.add(tombstone(number))
    ends.hear(tombstone(number) for number in range(10_000, 10_001 + MAX_HEARD))
    remembered = [number for number in range(20_000) if ends.get(tombstone(number).session)]
    assert remembered == [*range(1, MAX_TOMBSTONES + 1), *range(10_001, 10_001 + MAX_HEARD)]


def test_an_end_keeps_the_cause_that_came_first_and_is_forgotten_when_it_is_where_it_happened() -> None:
    ends = Tombstones()
    ends.add(tombstone(1, "replaced", until=5.0))
    ends.hear([tombstone(1, "deleted", until=9.0), tombstone(2, "no_stun", until=7.0), tombstone(2, until=9.0)])
    for now, causes in [(4.9, ["replaced", "no_stun"]), (5.0, [None, "no_stun"]), (7.0, [None, None])]:
        ends.handle_tick(now)
        known = [ends.get(tombstone(number).session) for number in (1, 2)]
        assert [one and one.cause for one in known] == causes


def test_who_asks_is_told_the_newest() -> None:
    ends = Tombstones()
    ends.hear(tombstone(number) for number in range(1, 2 * RECENT, 2))
    for number in range(0, MAX_TOMBSTONES, 2):
        ends.add(tombstone(number))
    assert [one.until for one in ends.recent()] == sorted(
        [*range(1, 2 * RECENT, 2), *range(0, MAX_TOMBSTONES, 2)],
    )[-RECENT:]


def test_messages_a_second_are_bounded_and_what_was_put_off_follows() -> None:
    ends, told = Tombstones(), []
    for number in range(MESSAGES_A_SECOND + 150):
        ends.add(tombstone(number))
        told.append(ends.to_tell())
    assert [len(message) for message in told] == [1] * MESSAGES_A_SECOND + [0] * 150
    ends.handle_tick(0)
    rest = [ends.to_tell() for _ in range(3)]
    assert [len(message) for message in rest] == [ENDS_A_MESSAGE, 50, 0]
    numbers = [one.until for message in (*told, *rest) for one in message]
    assert numbers == list(range(MESSAGES_A_SECOND + 150))
    for number in range(2 * MAX_TOMBSTONES):
        ends.add(tombstone(number))
    ends.handle_tick(0)
    assert sum(len(ends.to_tell()) for _ in range(100)) == MAX_TOMBSTONES


def test_an_end_is_told_to_all_others_before_the_session_is_withdrawn() -> None:
    worker = beside(slots=3)
    session = session_of(worker.publish())
    worker.now += 7
    worker.handle(Deleted(worker.number(), session, None))
    first = worker.effects[0]
    assert isinstance(first, TellEnds)
    assert first.slots == (1, 2)
    (end,) = first.ends.ends
    assert (end.session, end.cause, end.opened_at, end.ended_at) == (session, "deleted", NOW, NOW + 7)
    assert end.until == moment(NOW + 7).steady + TOMBSTONE_SECONDS


def test_who_is_alone_tells_nobody() -> None:
    worker = desk()
    worker.handle(Deleted(worker.number(), session_of(worker.publish()), None))
    assert worker.all(TellEnds) == []


def test_a_flood_of_ends_is_told_in_few_messages() -> None:
    worker = beside()
    messages = 0
    for _ in range(10 * MESSAGES_A_SECOND):
        session = session_of(worker.watch(sdp=offer(["audio"], direction="recvonly")))
        messages += len(worker.all(TellEnds))
        worker.handle(Deleted(worker.number(), session, None))
        messages += len(worker.all(TellEnds))
    assert messages == MESSAGES_A_SECOND
    worker.now += 1
    worker.handle(Ticked())
    assert [len(told.ends.ends) for told in worker.all(TellEnds)] == [ENDS_A_MESSAGE]


def test_a_worker_asks_some_others_once_how_sessions_ended() -> None:
    worker = beside(slots=5, slot=3)
    worker.handle(Ticked())
    assert [asked.slot for asked in worker.all(AskEnds)] == [4, 0]
    assert len(worker.all(AskEnds)) == ASKED
    worker.handle(Ticked())
    assert worker.all(AskEnds) == []


def test_a_session_that_had_ended_before_its_worker_died_ends_again_in_its_successor() -> None:
    worker = desk()
    session = session_of(worker.publish())
    told = replace(tombstone(1, "room_deleted", until=9e9), session=SessionId(session))
    worker.handle(EndsHeard((told,)))
    assert [ended.cause for ended in worker.all(SessionEnded)] == ["room_deleted"]
    assert worker.control.is_empty
