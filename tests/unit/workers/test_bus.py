import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgpack
import pytest

from millrace.relay.contract import codec
from millrace.relay.contract.effects import Reply
from millrace.relay.contract.facts import Envelope, Load, Snapshot
from millrace.relay.contract.ids import Incarnation, ParticipantId, RequestId, RoomName, SessionId, Slot
from millrace.relay.contract.inputs import Deleted, EndsHeard, RoomClosedElsewhere
from millrace.relay.contract.protocol import Protocol
from millrace.relay.contract.rpc import CallUnknown, PassedOn
from millrace.relay.contract.tombstone import Tombstone
from millrace.workers.bus import Bus, Handlers

ENDS = EndsHeard(
    (
        Tombstone(
            SessionId("00.AAAAAAAAAAAAAAAAAAAAAA"),
            Protocol.WHIP,
            RoomName("hall"),
            ParticipantId("ann"),
            opened_at=1.0,
            ended_at=2.0,
            cause="replaced",
            until=302.0,
        ),
    )
)


class Node:
    """A bus that keeps what it hears."""

    def __init__(self, directory: Path, slot: int, slots: int = 2, incarnation: int = 1) -> None:
        self.facts: list[Envelope] = []
        self.snapshots: list[Snapshot] = []
        self.rooms: list[str] = []
        self.ends: list[EndsHeard] = []
        self.passed_on: list[PassedOn] = []
        self.is_mute = False
        self.losses: Counter[str] = Counter()
        self.unknown: Counter[str] = Counter()
        self.slot = Slot(slot)
        self.incarnation = Incarnation(incarnation)
        handlers = Handlers(
            self.facts.append,
            self.snapshots.append,
            self._own,
            self._pass,
            lambda call: self.rooms.append(call.room),
            self.ends.append,
            lambda: ENDS,
            lambda kind: self.losses.update([kind]),
            lambda contract: self.unknown.update([contract]),
        )
        self.bus = Bus(directory, self.slot, [Slot(other) for other in range(slots) if other != slot], handlers)
        self.bus.start()

    def say(self, sequence: int) -> None:
        self.bus.announce(Envelope(self.slot, self.incarnation, sequence, Load(1, 2, 3, (("c", sequence),))))

    def _own(self) -> Snapshot:
        return Snapshot(self.slot, self.incarnation, 7, ())

    async def _pass(self, call: PassedOn) -> Reply | None:
        self.passed_on.append(call)
        if self.is_mute:
            return None
        return Reply(call.request, 200, (("ETag", '"x"'),), b"bye")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bus")


async def connected(speaker: Node, hearer: Node) -> None:
    """Repeats itself until it is heard: a subscriber misses what was said before it came."""

    async def repeat() -> None:
        while True:
            speaker.say(0)
            await asyncio.sleep(0.002)

    repeating = asyncio.create_task(repeat())
    await until(lambda: bool(hearer.facts))
    repeating.cancel()


async def test_facts_reach_the_other_workers_in_order(directory: Path) -> None:
    a, b = Node(directory, 0), Node(directory, 1)
    await connected(a, b)
    for sequence in range(1, 2001):
        a.say(sequence)
    await until(lambda: b.facts[-1].sequence == 2000)
    assert [fact.sequence for fact in b.facts if fact.sequence] == list(range(1, 2001))
    assert not a.facts
    a.bus.stop()
    b.bus.stop()


async def test_a_passed_on_request_comes_back_with_its_reply(directory: Path) -> None:
    a, b = Node(directory, 0), Node(directory, 1)
    request = Deleted(RequestId(4), "01.abc", None)
    answer = await a.bus.call(Slot(1), request)
    assert answer == Reply(RequestId(4), 200, (("ETag", '"x"'),), b"bye")
    assert b.passed_on == [request]
    many = await asyncio.gather(*(a.bus.call(Slot(1), Deleted(RequestId(n), "s", None)) for n in range(200)))
    assert [reply.request for reply in many if isinstance(reply, Reply)] == list(range(200))
    a.bus.stop()
    b.bus.stop()


async def test_a_call_to_nobody_ends_at_its_deadline_and_a_full_queue_at_once(directory: Path) -> None:
    a = Node(directory, 0)
    loop = asyncio.get_running_loop()
    took: list[float] = []
    for _ in range(3):
        started = loop.time()
        assert await a.bus.call(Slot(1), Deleted(RequestId(1), "s", None), 0.05) is None
        took.append(loop.time() - started)
        if took[-1] < 1:
            break
    assert 0.04 < min(took) < 1, took
    calls = [a.bus.call(Slot(1), Deleted(RequestId(n), "s", None), 0.05) for n in range(400)]
    assert set(await asyncio.gather(*calls)) == {None}
    assert a.losses["queue_full"] > 100
    a.bus.stop()


async def test_a_snapshot_is_asked_for_until_a_late_starter_answers(directory: Path) -> None:
    a = Node(directory, 0)
    a.bus.ask_snapshot(Slot(1))
    await asyncio.sleep(0.01)
    b = Node(directory, 1, incarnation=3)
    await until(lambda: bool(a.snapshots))
    assert a.snapshots[0] == Snapshot(Slot(1), Incarnation(3), 7, ())
    a.bus.stop()
    b.bus.stop()


async def test_a_successor_is_heard_and_asked_within_half_a_second(directory: Path) -> None:
    a, b = Node(directory, 0), Node(directory, 1)
    await connected(b, a)
    loop = asyncio.get_running_loop()
    took: list[float] = []
    for incarnation in (2, 3, 4):
        b.bus.stop()
        started = loop.time()
        b = Node(directory, 1, incarnation=incarnation)
        a.bus.ask_snapshot(Slot(1))
        await until(lambda wanted=incarnation: bool(a.snapshots) and a.snapshots[-1].incarnation == wanted)
        a.facts.clear()
        await connected(b, a)
        took.append(loop.time() - started)
        if took[-1] < 0.5:
            break
    # One of three: a machine may stand still for a moment.
    assert min(took) < 0.5, took
    a.bus.stop()
    b.bus.stop()


async def test_what_a_worker_has_not_answered_is_asked_of_its_successor(directory: Path) -> None:
    a, b = Node(directory, 0), Node(directory, 1)
    b.is_mute = True
    request = Deleted(RequestId(9), "s", None)
    asking = asyncio.create_task(a.bus.call(Slot(1), request))
    await until(lambda: b.passed_on == [request])
    b.bus.stop()
    successor = Node(directory, 1, incarnation=2)
    a.bus.ask_again(Slot(1))
    answer = await asking
    assert isinstance(answer, Reply)
    assert answer.status == 200
    assert successor.passed_on == [request]
    assert a.losses == {}
    a.bus.stop()
    successor.bus.stop()


async def test_an_answer_given_before_the_end_still_arrives(directory: Path) -> None:
    a, b = Node(directory, 0), Node(directory, 1)
    asking = asyncio.create_task(a.bus.call(Slot(1), Deleted(RequestId(9), "s", None)))
    await until(lambda: bool(b.passed_on))
    await asyncio.sleep(0)
    b.bus.stop()
    assert isinstance(await asking, Reply)
    a.bus.stop()


async def test_a_closed_room_is_told_to_all_others(directory: Path) -> None:
    nodes = [Node(directory, slot, 3) for slot in range(3)]
    nodes[0].bus.close_room(RoomClosedElsewhere("hall"))
    await until(lambda: bool(nodes[1].rooms) and bool(nodes[2].rooms))
    assert nodes[0].rooms == []
    for node in nodes:
        node.bus.stop()


async def test_what_cannot_be_read_is_counted_and_the_next_message_is_taken(directory: Path) -> None:
    a, b = Node(directory, 0), Node(directory, 1)
    await connected(a, b)
    good = codec.pack_envelope(Envelope(Slot(0), Incarnation(1), 5, Load(0, 0, 0, ())))
    for message in (b"", b"\xc1", b"\x93\x01\x02", good[:-3], b"\x92\x63" + good[2:], good):
        a.bus._facts_out.send(message)
    await until(lambda: b.facts[-1].sequence == 5)
    assert b.losses["unreadable_fact"] == 5
    for frames in ([b""], [b"\0" * 8, b"junk"], [b"1", b"2", b"3", b"4"]):
        a.bus._calls_out[Slot(1)].send_multipart(frames)
    assert isinstance(await a.bus.call(Slot(1), Deleted(RequestId(9), "s", None)), Reply)
    assert b.losses["unreadable_call"] == 3
    a.bus.stop()
    b.bus.stop()


INVENTED = msgpack.packb([1, {"Invented": {"since": "later"}}])


async def test_what_a_later_release_says_is_counted_apart_and_its_number_is_heard(directory: Path) -> None:
    a, b = Node(directory, 0), Node(directory, 1)
    await connected(a, b)
    version, later = msgpack.unpackb(codec.pack_envelope(Envelope(Slot(0), Incarnation(1), 5, None)))
    later["Envelope"]["fact"] = {"Invented": {}}
    a.bus._facts_out.send(msgpack.packb([version, later]))
    await until(lambda: b.facts[-1].sequence == 5)
    assert b.facts[-1].fact is None
    assert (b.unknown, b.losses) == ({"facts": 1}, {})
    a.bus.stop()
    b.bus.stop()


@pytest.mark.parametrize(
    ("call", "lost", "unknown"), [(INVENTED, {}, {"calls": 1}), (b"junk", {"unreadable_call": 1}, {})]
)
async def test_whoever_waits_for_the_answer_to_a_call_that_cannot_be_read_is_told_at_once(
    directory: Path, monkeypatch: pytest.MonkeyPatch, call: bytes, lost: dict[str, int], unknown: dict[str, int]
) -> None:
    a, b = Node(directory, 0), Node(directory, 1)
    monkeypatch.setattr(codec, "pack_rpc", lambda _: call)
    # Without end: only the answer lets it return.
    assert await a.bus.call(Slot(1), Deleted(RequestId(9), "s", None), seconds=3600) == CallUnknown()
    a.bus.tell_ends([Slot(1)], ENDS)
    await until(lambda: sum((*b.losses.values(), *b.unknown.values())) == 2)
    assert (b.losses, b.unknown) == (dict.fromkeys(lost, 2), dict.fromkeys(unknown, 2))
    assert not a.losses, "what has no answer is not answered"
    assert not a.unknown
    a.bus.stop()
    b.bus.stop()


async def test_an_answer_that_cannot_be_read_ends_the_wait_and_is_not_asked_for_again(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = Node(directory, 0), Node(directory, 1)
    monkeypatch.setattr(codec, "pack_answer", lambda _: INVENTED)
    assert await a.bus.call(Slot(1), Deleted(RequestId(9), "s", None), seconds=3600) == CallUnknown()
    a.bus.ask_ends(Slot(1))
    await until(lambda: a.unknown["answers"] == 2)
    await until(lambda: not a.bus._tasks)
    assert (a.unknown, a.losses, a.ends) == ({"answers": 2}, {}, [])
    a.bus.stop()
    b.bus.stop()


async def test_stopping_leaves_no_socket_and_no_file(directory: Path) -> None:
    a = Node(directory, 0)
    a.bus.stop()
    again = Node(directory, 0)
    again.bus.stop()
    assert again.bus._context.closed
    assert list(directory.iterdir()) == []


async def test_a_slot_is_met_when_somebody_comes_and_parted_from_when_nobody_is_to_come(directory: Path) -> None:
    a = Node(directory, 0, slots=1)
    delete = Deleted(RequestId(1), "s", None)
    assert await a.bus.call(Slot(1), delete) is None, "nobody is known there"
    for life in (1, 2):
        b = Node(directory, 1, incarnation=life)
        a.bus.connect(Slot(1))
        a.bus.connect(Slot(1))
        a.facts.clear()
        await connected(b, a)
        assert a.facts[-1].incarnation == life
        assert isinstance(await a.bus.call(Slot(1), delete), Reply)
        b.bus.stop()
        a.bus.disconnect(Slot(1))
        a.bus.disconnect(Slot(1))
        assert await a.bus.call(Slot(1), delete) is None, "at once"
    a.bus.stop()


async def test_ends_are_told_to_whom_they_are_for_and_asked_of_one_worker(directory: Path) -> None:
    a, b, c = (Node(directory, slot, slots=3) for slot in range(3))
    a.bus.tell_ends([Slot(1), Slot(7)], ENDS)
    await until(lambda: b.ends == [ENDS])
    a.bus.ask_ends(Slot(1))
    await until(lambda: a.ends == [ENDS])
    assert c.ends == []
    for node in (a, b, c):
        assert not node.losses
        node.bus.stop()
