from dataclasses import replace

from millrace.relay.contract.facts import Envelope, Fact, ParticipantGone, Snapshot
from millrace.relay.contract.ids import Incarnation, RoomName, SessionId, Slot
from millrace.relay.membership.remote_worker import (
    ASK_AGAIN_SECONDS,
    HOLD_SECONDS,
    MAX_PENDING,
    NOTHING,
    SILENCE_SECONDS,
    Heard,
    RemoteWorker,
)


def fact(number: int) -> Fact:
    return ParticipantGone(RoomName("hall"), SessionId(str(number)))


def envelope(sequence: int, incarnation: int = 1) -> Envelope:
    return Envelope(Slot(1), Incarnation(incarnation), sequence, fact(sequence))


def snapshot(sequence: int, *numbers: int, incarnation: int = 1) -> Snapshot:
    return Snapshot(Slot(1), Incarnation(incarnation), sequence, tuple(fact(number) for number in numbers))


def known() -> RemoteWorker:
    """One whose first incarnation has said nothing yet."""
    remote = RemoteWorker()
    assert remote.handle_snapshot(snapshot(0), 0) == Heard(forget=True, facts=[])
    return remote


def test_facts_in_order_pass_through() -> None:
    remote = known()
    assert remote.handle_envelope(envelope(1), 0) == Heard(facts=(fact(1),))
    assert remote.handle_envelope(envelope(2), 0) == Heard(facts=(fact(2),))


def test_a_fact_of_an_unknown_kind_counts_in_the_sequence_and_asks_for_nothing() -> None:
    peer = known()
    assert peer.handle_envelope(replace(envelope(1), fact=None), 0) == NOTHING
    assert peer.handle_envelope(envelope(2), 0) == Heard(facts=(fact(2),))
    waiting = RemoteWorker()
    assert waiting.handle_envelope(replace(envelope(2), fact=None), 0).ask
    assert waiting.handle_envelope(envelope(3), 0) == NOTHING
    assert waiting.handle_snapshot(snapshot(1, 1), 0) == Heard(forget=True, facts=[fact(1), fact(3)])
    assert waiting.handle_envelope(envelope(4), 0) == Heard(facts=(fact(4),))


def test_the_first_fact_of_an_unknown_incarnation_asks_for_the_others() -> None:
    remote = RemoteWorker()
    assert remote.handle_envelope(envelope(1), 0) == Heard(ask=True)
    assert remote.handle_envelope(envelope(2), 0) == NOTHING
    assert remote.handle_snapshot(snapshot(1, 30, 1), 0) == Heard(forget=True, facts=[fact(30), fact(1), fact(2)])


def test_a_duplicate_is_passed_over() -> None:
    remote = RemoteWorker()
    remote.handle_envelope(envelope(1), 0)
    assert remote.handle_envelope(envelope(1), 0) == NOTHING


def test_a_gap_asks_once_and_later_facts_wait_for_the_snapshot() -> None:
    remote = known()
    remote.handle_envelope(envelope(1), 0)
    assert remote.handle_envelope(envelope(3), 0) == Heard(ask=True)
    assert remote.handle_envelope(envelope(5), 0) == NOTHING
    assert remote.handle_envelope(envelope(4), 0) == NOTHING
    heard = remote.handle_snapshot(snapshot(3, 30), 0)
    assert heard == Heard(forget=True, facts=[fact(30), fact(4), fact(5)])
    assert remote.handle_envelope(envelope(6), 0) == Heard(facts=(fact(6),))


def test_a_gap_behind_the_snapshot_asks_again() -> None:
    remote = RemoteWorker()
    remote.handle_envelope(envelope(3), 0)
    remote.handle_envelope(envelope(7), 0)
    assert remote.handle_snapshot(snapshot(4), 0) == Heard(forget=True, facts=[], ask=True)
    assert remote.handle_snapshot(snapshot(7), 0) == Heard(forget=True, facts=[])
    assert remote.handle_envelope(envelope(8), 0) == Heard(facts=(fact(8),))


def test_a_stale_snapshot_does_not_undo_what_was_heard_since() -> None:
    remote = known()
    for sequence in range(1, 6):
        remote.handle_envelope(envelope(sequence), 0)
    assert remote.handle_snapshot(snapshot(3), 0) == NOTHING
    assert remote.handle_envelope(envelope(7), 0) == Heard(ask=True)
    assert remote.handle_snapshot(snapshot(4), 0) == NOTHING
    assert remote.handle_snapshot(snapshot(6), 0) == Heard(forget=True, facts=[fact(7)])


def test_an_unanswered_question_is_asked_again() -> None:
    remote = RemoteWorker()
    remote.handle_envelope(envelope(2), 0)
    assert remote.handle_tick(ASK_AGAIN_SECONDS / 2) == NOTHING
    assert remote.handle_tick(ASK_AGAIN_SECONDS) == Heard(ask=True)
    assert remote.handle_tick(ASK_AGAIN_SECONDS) == NOTHING


def test_waiting_facts_are_bounded_and_what_was_dropped_is_asked_for() -> None:
    remote = RemoteWorker()
    for sequence in range(2, MAX_PENDING + 100):
        remote.handle_envelope(envelope(sequence), 0)
    heard = remote.handle_snapshot(snapshot(1), 0)
    assert len(heard.facts) == MAX_PENDING
    assert remote.handle_envelope(envelope(MAX_PENDING + 100), 0) == Heard(ask=True)


def test_a_new_incarnation_replaces_the_old_one_when_its_snapshot_is_in() -> None:
    remote = known()
    remote.handle_envelope(envelope(1), 0)
    assert remote.handle_envelope(envelope(1, incarnation=2), 0) == Heard(ask=True)
    assert remote.is_held
    assert remote.handle_envelope(envelope(2, incarnation=1), 0) == NOTHING
    assert remote.handle_snapshot(snapshot(1, 1, incarnation=2), 0) == Heard(forget=True, facts=[fact(1)])
    assert not remote.is_held
    assert remote.handle_tick(HOLD_SECONDS) == NOTHING


def test_a_slot_that_comes_to_life_is_asked_for_its_facts() -> None:
    remote = RemoteWorker()
    assert remote.handle_slot(Incarnation(4), 0) == Heard(ask=True)
    assert remote.handle_slot(Incarnation(4), 0) == NOTHING
    assert remote.handle_snapshot(snapshot(9, 1, incarnation=4), 0) == Heard(forget=True, facts=[fact(1)])


def test_a_worker_whose_first_fact_came_before_the_masters_word_is_not_asked() -> None:
    remote = RemoteWorker()
    remote.handle_envelope(envelope(1), 0)
    assert remote.handle_slot(Incarnation(1), 0) == NOTHING


def test_late_facts_of_a_dead_worker_are_not_believed() -> None:
    remote = RemoteWorker()
    remote.handle_envelope(envelope(1), 0)
    assert remote.handle_slot(None, 0) == NOTHING
    assert remote.handle_envelope(envelope(2), 0) == NOTHING
    assert remote.handle_snapshot(snapshot(2), 0) == NOTHING
    assert remote.handle_envelope(envelope(1, incarnation=2), 0) == Heard(ask=True)


def test_the_facts_of_a_dead_worker_stand_for_a_while() -> None:
    remote = known()
    remote.handle_slot(None, 1.0)
    assert remote.is_held
    assert remote.is_awaited
    assert remote.handle_tick(1.0 + HOLD_SECONDS - 0.1) == NOTHING
    assert remote.handle_tick(1.0 + HOLD_SECONDS) == Heard(forget=True)
    assert not remote.is_held
    assert not remote.is_awaited
    assert remote.handle_tick(2.0 + HOLD_SECONDS) == NOTHING


def test_a_successor_gets_its_own_time_to_tell_its_facts() -> None:
    remote = known()
    remote.handle_slot(None, 0)
    assert remote.handle_slot(Incarnation(2), 1.0) == Heard(ask=True)
    assert remote.handle_tick(HOLD_SECONDS) == Heard(ask=True)
    assert remote.handle_tick(1.0 + HOLD_SECONDS) == Heard(forget=True, ask=True)
    assert remote.is_awaited
    assert remote.handle_snapshot(snapshot(3, 1, incarnation=2), 4.0) == Heard(forget=True, facts=[fact(1)])


def test_news_of_an_older_incarnation_is_passed_over() -> None:
    remote = RemoteWorker()
    remote.handle_slot(Incarnation(3), 0)
    assert remote.handle_slot(Incarnation(2), 0) == NOTHING


def test_long_silence_withdraws_the_facts_until_a_snapshot_comes() -> None:
    remote = known()
    remote.handle_envelope(envelope(1), 0)
    assert remote.handle_tick(SILENCE_SECONDS - 1) == NOTHING
    assert remote.handle_tick(SILENCE_SECONDS) == Heard(forget=True, ask=True)
    assert remote.handle_envelope(envelope(2), SILENCE_SECONDS) == NOTHING
    assert remote.handle_snapshot(snapshot(1, 1), SILENCE_SECONDS) == Heard(forget=True, facts=[fact(1), fact(2)])


def test_a_slot_that_is_left_for_good_is_forgotten_and_awaited_no_more() -> None:
    for remote in (known(), RemoteWorker()):
        remote.handle_envelope(envelope(5), 0)
        assert remote.is_awaited
        assert remote.handle_empty() == Heard(forget=True)
        assert not remote.is_awaited
        assert not remote.alive
        assert remote.handle_tick(HOLD_SECONDS + SILENCE_SECONDS) == NOTHING
        assert remote.handle_envelope(envelope(6), 0) == NOTHING, "late"
    assert remote.handle_slot(Incarnation(2), 20) == Heard(ask=True)
