from dataclasses import replace

import pytest

from millrace.relay.contract.commands import CodecName, MediaKind
from millrace.relay.contract.facts import (
    Envelope,
    Fact,
    Load,
    ParticipantGone,
    ParticipantHere,
    PublicationGone,
    PublicationHere,
    Snapshot,
)
from millrace.relay.contract.ids import Incarnation, ParticipantId, PublicationId, RoomName, SessionId, Slot
from millrace.relay.membership.directory import Directory
from millrace.relay.membership.remote_worker import HOLD_SECONDS

HALL = RoomName("hall")


def participant(session: str, publishes: bool = True, room: str = "hall", at: float = 0) -> ParticipantHere:
    return ParticipantHere(RoomName(room), ParticipantId(session), SessionId(session), publishes, at)


def publication(session: str, number: int, room: str = "hall") -> PublicationHere:
    who = ParticipantId(session)
    return PublicationHere(
        RoomName(room),
        SessionId(session),
        who,
        PublicationId(number),
        MediaKind.VIDEO,
        0,
        CodecName.VP8,
        90_000,
        "",
        (number,),
        (),
        0.0,
    )


class Speaker:
    """Another worker's side of the bus."""

    def __init__(self, directory: Directory, slot: int = 1, incarnation: int = 1) -> None:
        self.directory, self.slot, self.incarnation, self.sequence = directory, Slot(slot), Incarnation(incarnation), 0
        directory.handle_snapshot(self.snapshot(), 0)

    def snapshot(self, *facts: Fact) -> Snapshot:
        return Snapshot(self.slot, self.incarnation, self.sequence, facts)

    def say(self, fact: Fact) -> object:
        self.sequence += 1
        return self.directory.handle_envelope(Envelope(self.slot, self.incarnation, self.sequence, fact), 0)


@pytest.fixture
def directory() -> Directory:
    return Directory(Slot(0))


def test_the_directory_is_the_union_of_all_workers_facts(directory: Directory) -> None:
    directory.apply_own(participant("a"))
    Speaker(directory, 1).say(participant("b"))
    Speaker(directory, 2).say(participant("c"))
    assert directory.view() == {participant("a"), participant("b"), participant("c")}


def test_only_publishers_and_publications_touch_a_room(directory: Directory) -> None:
    speaker = Speaker(directory)
    assert speaker.say(participant("viewer", publishes=False)).rooms == set()
    assert speaker.say(participant("b")).rooms == {HALL}
    assert speaker.say(publication("b", 1)).rooms == {HALL}
    assert speaker.say(PublicationGone(HALL, PublicationId(1))).rooms == {HALL}
    assert speaker.say(ParticipantGone(HALL, SessionId("viewer"))).rooms == set()
    assert speaker.say(ParticipantGone(HALL, SessionId("b"))).rooms == {HALL}


def test_a_room_that_everyone_has_left_is_forgotten(directory: Directory) -> None:
    speaker = Speaker(directory)
    speaker.say(participant("b"))
    speaker.say(publication("b", 1))
    speaker.say(PublicationGone(HALL, PublicationId(1)))
    assert directory.room(HALL) is not None
    speaker.say(ParticipantGone(HALL, SessionId("b")))
    assert directory.room(HALL) is None
    assert list(directory.rooms()) == []


def test_the_death_of_a_slot_takes_its_facts_and_no_others(directory: Directory) -> None:
    directory.apply_own(participant("a"))
    Speaker(directory, 1).say(participant("b", room="attic"))
    Speaker(directory, 2).say(participant("c"))
    directory.handle_slot(Slot(1), None, 0)
    (_, change), (_, other) = directory.handle_tick(HOLD_SECONDS)
    assert change.rooms == {"attic"}
    assert other.rooms == set()
    assert directory.view() == {participant("a"), participant("c")}
    assert not directory.is_alive(Slot(1))
    assert directory.is_alive(Slot(2))


def test_a_dead_slots_facts_stand_until_its_successor_tells_them_again(directory: Directory) -> None:
    speaker = Speaker(directory)
    speaker.say(participant("b"))
    speaker.say(publication("b", 1))
    speaker.say(participant("lost"))
    before = directory.view()
    directory.handle_slot(Slot(1), None, 0)
    assert directory.is_alive(Slot(1))
    assert directory.waits_for_others()
    assert directory.handle_slot(Slot(1), Incarnation(2), 0.4).ask
    first = directory.handle_envelope(Envelope(Slot(1), Incarnation(2), 1, participant("b")), 0.5)
    assert (first.rooms, directory.view()) == (set(), before)
    successor = Snapshot(Slot(1), Incarnation(2), 2, (participant("b"), publication("b", 1)))
    change = directory.handle_snapshot(successor, 0.5)
    assert change.publishers == ()
    assert directory.view() == before - {participant("lost")}
    assert not directory.waits_for_others()
    assert [change.rooms for _, change in directory.handle_tick(HOLD_SECONDS + 1)] == [frozenset()]
    assert directory.view() == before - {participant("lost")}


def test_a_successor_that_is_not_heard_of_in_time_has_nobody(directory: Directory) -> None:
    Speaker(directory).say(participant("b"))
    directory.handle_slot(Slot(1), Incarnation(2), 0)
    list(directory.handle_tick(HOLD_SECONDS - 0.1))
    assert directory.view() == {participant("b")}
    list(directory.handle_tick(HOLD_SECONDS))
    assert directory.view() == set()
    directory.handle_snapshot(Snapshot(Slot(1), Incarnation(2), 1, (participant("b"),)), HOLD_SECONDS + 1)
    assert directory.view() == {participant("b")}


def test_a_snapshot_replaces_what_was_known_and_names_only_new_publishers(directory: Directory) -> None:
    speaker = Speaker(directory)
    speaker.say(participant("b"))
    speaker.say(participant("gone"))
    snapshot = Snapshot(Slot(1), Incarnation(1), 9, (participant("b"), participant("new")))
    change = directory.handle_snapshot(snapshot, 0)
    assert directory.view() == {participant("b"), participant("new")}
    assert change.publishers == (participant("new"),)


def test_a_gap_has_the_slot_asked(directory: Directory) -> None:
    speaker = Speaker(directory, incarnation=5)
    speaker.sequence = 3
    assert speaker.say(participant("b")).ask


def test_our_own_facts_are_the_snapshot_for_others(directory: Directory) -> None:
    facts: list[Fact] = [participant("a"), publication("a", 1), Load(1, 1, 0, ())]
    for fact in facts:
        directory.apply_own(fact)
    Speaker(directory).say(participant("b"))
    assert directory.own_facts() == tuple(facts)


def test_our_own_facts_over_the_bus_are_passed_over(directory: Directory) -> None:
    Speaker(directory, slot=0).say(participant("echo"))
    directory.handle_slot(Slot(0), None, 0)
    directory.handle_snapshot(Snapshot(Slot(0), Incarnation(9), 1, (participant("echo"),)), 0)
    assert directory.view() == set()
    assert directory.is_alive(Slot(0))


def test_the_last_load_of_each_living_worker_is_kept(directory: Directory) -> None:
    directory.apply_own(Load(1, 0, 0, ()))
    speaker = Speaker(directory)
    speaker.say(Load(2, 0, 0, ()))
    speaker.say(Load(3, 0, 0, ()))
    assert {slot: load.sessions for slot, load in directory.loads().items()} == {0: 1, 1: 3}
    directory.handle_slot(Slot(1), None, 0)
    list(directory.handle_tick(HOLD_SECONDS))
    assert set(directory.loads()) == {0}


def test_a_publication_is_as_the_slot_that_still_has_it_says(directory: Directory) -> None:
    """A session moved from slot 1 to slot 2, and its codec changed there; then slot 1 repeats what it knows."""
    source, target = Speaker(directory, 1), Speaker(directory, 2)
    moved = publication("ann", 7)
    later = replace(moved, codec=CodecName.VP9)
    source.say(moved)
    target.say(later)
    directory.handle_snapshot(source.snapshot(moved), 0)
    source.say(moved)
    source.say(PublicationGone(moved.room, moved.publication))
    assert directory.room(moved.room).publications == {7: later}
