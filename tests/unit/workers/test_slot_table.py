import os
from collections.abc import Iterator

import pytest

from millrace.relay.contract.ids import Incarnation, Slot
from millrace.relay.contract.inputs import SlotChanged
from millrace.relay.contract.layout import SlotState, read_word, slot_offsets, write_word
from millrace.workers.slot_table import SlotTable, monotonic_us
from tests.unit.arena_kit import Master


@pytest.fixture
def master() -> Iterator[Master]:
    master = Master()
    yield master
    os.close(master.arena)


def test_changes_are_told_once_and_never_of_ourselves(master: Master) -> None:
    table = SlotTable(master.arena, 3, Slot(1))
    assert table.changes() == []
    master.write(0, 1, SlotState.STARTING)
    master.write(1, 1, SlotState.RUNNING)
    assert table.changes() == [SlotChanged(Slot(0), Incarnation(1))]
    master.write(0, 1, SlotState.RUNNING)
    assert table.changes() == []
    master.write(0, 1, SlotState.DEAD)
    assert table.changes() == [SlotChanged(Slot(0), None)]
    master.write(0, 2, SlotState.STARTING)
    assert table.changes() == [SlotChanged(Slot(0), Incarnation(2))]
    table.close()


def test_a_death_and_a_birth_between_two_looks_are_one_change(master: Master) -> None:
    table = SlotTable(master.arena, 3, Slot(1))
    master.write(2, 4, SlotState.RUNNING)
    table.changes()
    master.write(2, 5, SlotState.RUNNING)
    assert table.changes() == [SlotChanged(Slot(2), Incarnation(5))]
    table.close()


def test_all_workers_are_ready_when_every_one_runs_and_beats(master: Master) -> None:
    table = SlotTable(master.arena, 3, Slot(0))
    now = monotonic_us()
    for slot in range(3):
        master.write(slot, 1, SlotState.RUNNING, now)
    assert table.not_ready(5, needs_all=True) is None
    master.write(2, 1, SlotState.STARTING, now)
    assert table.not_ready(5, needs_all=True) == "worker 2 is starting"
    master.write(2, 1, SlotState.RUNNING, now - 6_000_000)
    assert table.not_ready(5, needs_all=True) == "worker 2 does not beat"
    table.close()


def test_the_server_is_ready_while_one_open_worker_runs_and_beats(master: Master) -> None:
    table = SlotTable(master.arena, 3, Slot(0))
    now = monotonic_us()
    master.write(0, 1, SlotState.RUNNING, now)
    master.write(1, 1, SlotState.RUNNING, now - 6_000_000)
    master.write(2, 1, SlotState.DEAD, now)
    assert table.not_ready(5, needs_all=False) is None
    table.close_slot(Slot(0), True)
    assert table.not_ready(5, needs_all=False) == "no worker takes sessions: worker 1 does not beat"
    master.write(1, 2, SlotState.RUNNING, now)
    assert table.not_ready(5, needs_all=False) is None
    master.write(1, 2, SlotState.RUNNING, now, wanted=False)
    master.write(2, 1, SlotState.EMPTY, wanted=False)
    assert table.not_ready(5, needs_all=False) == "no worker takes sessions: all that serve are drained"
    table.close()


def test_our_beat_is_seen_by_others(master: Master) -> None:
    ours, other = SlotTable(master.arena, 3, Slot(0)), SlotTable(master.arena, 3, Slot(1))
    before = monotonic_us()
    ours.beat()
    assert before <= other.rows()[0].control_beat_us <= monotonic_us()
    assert other.rows()[1].control_beat_us == 0
    ours.close()
    other.close()


def test_a_drained_server_is_not_ready_and_hears_when_our_last_session_is_over(master: Master) -> None:
    table = SlotTable(master.arena, 1, Slot(0))
    master.write(0, 1, SlotState.RUNNING, monotonic_us())
    assert not table.is_draining()
    assert table.rows()[0].drain_deadline(1000.0, 0) == 0
    at = slot_offsets(0)
    write_word(master.map, at.drain_until, 30_000_000)
    assert table.is_draining()
    assert {table.not_ready(5, needs_all) for needs_all in (True, False)} == {"the server is draining"}
    assert table.rows()[0].drain_deadline(1000.0, 10_000_000) == 1020
    assert read_word(master.map, at.drained) == 0
    table.report_drained(is_empty=True)
    assert read_word(master.map, at.drained) == 30_000_000
    table.report_drained(is_empty=False)
    assert read_word(master.map, at.drained) == 0, "somebody has come back"
    table.close()


def test_an_empty_slot_is_waited_for_only_when_somebody_is_wanted_there(master: Master) -> None:
    table = SlotTable(master.arena, 3, Slot(0))
    now = monotonic_us()
    for slot in (0, 1):
        master.write(slot, 1, SlotState.RUNNING, now)
    assert table.not_ready(5, needs_all=True) is None
    master.write(2, 0, SlotState.EMPTY)
    assert table.not_ready(5, needs_all=True) == "worker 2 is empty"
    master.write(2, 1, SlotState.RUNNING, now, wanted=False)
    assert table.not_ready(5, needs_all=True) is None
    table.close()


def test_a_slot_that_is_left_for_good_is_told_of_as_empty_and_a_dead_one_is_not(master: Master) -> None:
    table = SlotTable(master.arena, 3, Slot(0))
    master.write(1, 2, SlotState.RUNNING, wanted=False)
    assert table.changes() == [SlotChanged(Slot(1), Incarnation(2))]
    master.write(1, 2, SlotState.DEAD, wanted=False)
    assert table.changes() == [SlotChanged(Slot(1), None)]
    master.write(1, 2, SlotState.EMPTY, wanted=False)
    assert table.changes() == [SlotChanged(Slot(1), None, is_empty=True)]
    assert table.changes() == []
    table.close()


def test_a_worker_learns_that_its_slot_is_not_wanted(master: Master) -> None:
    table = SlotTable(master.arena, 3, Slot(1))
    master.write(1, 1, SlotState.RUNNING)
    assert table.is_wanted()
    master.write(1, 1, SlotState.RUNNING, wanted=False)
    assert not table.is_wanted()
    table.close()


def test_a_beat_looks_closer_only_when_something_was_written(master: Master) -> None:
    table = SlotTable(master.arena, 3, Slot(1))
    at = slot_offsets(Slot(1))
    assert table.was_written(), "nobody has looked yet"
    assert not table.was_written()
    master.write(0, 1, SlotState.RUNNING)
    assert table.was_written()
    master.write(0, 1, SlotState.RUNNING, monotonic_us())
    assert not table.was_written(), "others' beats are not asked for"
    master.write(0, 1, SlotState.DEAD)
    assert table.was_written()
    master.write(0, 1, SlotState.DEAD, wanted=False)
    assert table.was_written()
    table.close_slot(Slot(2), True)
    assert table.was_written()
    write_word(master.map, at.log_level, 10)
    assert table.was_written()
    assert not table.was_written()
    table.close()


def test_the_first_worker_that_serves_stands_in_for_those_that_do_not(master: Master) -> None:
    now = monotonic_us()
    tables = [SlotTable(master.arena, 3, Slot(slot)) for slot in range(3)]
    for slot in range(3):
        master.write(slot, 1, SlotState.RUNNING, now)
    assert [table.deserted(5) for table in tables] == [frozenset()] * 3
    # Down, by the master's word, whatever became of its worker.
    master.write(0, 1, SlotState.DEAD)
    assert [table.deserted(5) for table in tables] == [frozenset()] * 3
    write_word(master.map, slot_offsets(0).down, 1)
    assert [table.deserted(5) for table in tables] == [frozenset(), {0}, frozenset()]
    # Silent, which is all that can be known without a master.
    master.write(1, 1, SlotState.RUNNING, now - 6_000_000)
    assert [table.deserted(5) for table in tables] == [frozenset(), frozenset(), {0, 1}]
    for table in tables:
        table.close()
