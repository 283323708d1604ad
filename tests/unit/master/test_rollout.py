"""Which worker gets the new configuration next, without processes."""

import pytest

from millrace.master.life import Life
from millrace.master.rollout import Rollout
from millrace.relay.contract.layout import SlotState


class Box:
    """Slots whose workers live and die as the test says."""

    def __init__(self, count: int = 3) -> None:
        self.lives = [Life(slot) for slot in range(count)]
        self.rollout = Rollout("old")
        self.has: dict[int, str] = {}
        for life in self.lives:
            self.fork(life)
            self.serve(life)

    def fork(self, life: Life) -> None:
        life.state, life.serves = SlotState.STARTING, False
        self.rollout.forked(life.slot)
        self.has[life.slot] = self.rollout.target

    def serve(self, life: Life) -> None:
        life.state, life.serves = SlotState.RUNNING, True

    def release(self) -> Life:
        life = self.rollout.next(self.lives)
        assert life is not None
        life.state = SlotState.RELEASING
        return life

    def end(self, life: Life) -> None:
        life.state = SlotState.DEAD

    def replace_next(self) -> None:
        life = self.release()
        self.end(life)
        self.fork(life)
        self.serve(life)


def test_one_worker_after_another_is_replaced_each_when_the_one_before_serves() -> None:
    box = Box()
    box.rollout.begin("new")
    for slot in range(3):
        assert not box.rollout.is_done(box.lives)
        life = box.release()
        assert life.slot == slot
        assert box.rollout.next(box.lives) is None
        box.end(life)
        assert box.rollout.next(box.lives) is None
        box.fork(life)
        assert box.rollout.next(box.lives) is None
        assert box.rollout.failed(box.lives) is None
        box.serve(life)
    assert box.rollout.next(box.lives) is None
    assert box.rollout.is_done(box.lives)
    assert not box.rollout.is_under_way
    assert set(box.has.values()) == {"new"}


def test_nobody_is_replaced_who_has_died_meanwhile_and_has_the_new_one() -> None:
    box = Box()
    box.rollout.begin("new")
    box.end(box.lives[0])
    assert box.rollout.next(box.lives) is None
    assert box.rollout.failed(box.lives) is None, "it had the old one"
    box.fork(box.lives[0])
    box.serve(box.lives[0])
    assert box.release().slot == 1


@pytest.mark.parametrize("state", [SlotState.DEAD, SlotState.STOPPING])
def test_replacement_that_does_not_come_up_takes_all_back_to_what_worked(state: SlotState) -> None:
    box = Box()
    box.rollout.begin("new")
    box.replace_next()
    second = box.release()
    box.end(second)
    box.fork(second)
    second.state = state
    assert box.rollout.failed(box.lives) is second
    box.rollout.fall_back()
    assert box.rollout.target == "old"
    assert box.rollout.failed(box.lives) is None
    box.fork(second)
    box.serve(second)
    assert box.rollout.is_under_way
    assert box.release().slot == 0, "it has the new one"
    box.end(box.lives[0])
    box.fork(box.lives[0])
    box.serve(box.lives[0])
    assert box.rollout.is_done(box.lives)
    assert set(box.has.values()) == {"old"}


def test_another_one_in_the_middle_takes_over_and_falls_back_to_the_first() -> None:
    box = Box()
    box.rollout.begin("new")
    box.replace_next()
    box.serve(box.lives[0])
    box.rollout.begin("newer")
    life = box.release()
    assert life.slot == 0
    box.end(life)
    box.fork(life)
    box.end(life)
    assert box.rollout.failed(box.lives) is life
    box.rollout.fall_back()
    assert box.rollout.target == "old"


def test_what_workers_need_not_know_replaces_none() -> None:
    box = Box()
    box.rollout.replace_config("same to workers")
    assert box.rollout.target == "same to workers"
    assert not box.rollout.is_under_way
    assert box.rollout.next(box.lives) is None


def test_worker_that_served_and_died_later_is_no_failure_of_what_it_was_given() -> None:
    box = Box()
    box.rollout.begin("new")
    box.replace_next()
    box.end(box.lives[0])
    assert box.rollout.failed(box.lives) is None


def test_workers_of_another_program_are_replaced_and_there_is_nothing_to_fall_back_to() -> None:
    box = Box()
    box.rollout = Rollout("new")
    box.rollout.inherit([0, 2])
    box.fork(box.lives[1])
    assert box.rollout.next(box.lives) is None, "its slot was empty"
    box.serve(box.lives[1])
    assert box.release().slot == 0
    box.end(box.lives[0])
    box.fork(box.lives[0])
    box.end(box.lives[0])
    assert box.rollout.failed(box.lives) is None
    box.fork(box.lives[0])
    box.serve(box.lives[0])
    assert box.release().slot == 2


def test_nothing_is_under_way_where_nobody_lived() -> None:
    rollout = Rollout("new")
    rollout.inherit([])
    assert not rollout.is_under_way


def test_a_slot_that_was_down_before_holds_nobody_up_and_is_not_the_new_configurations_fault() -> None:
    box = Box()
    box.end(box.lives[0])
    box.rollout.begin("new", down=[0])
    box.fork(box.lives[0])
    box.end(box.lives[0])
    assert box.rollout.failed(box.lives) is None
    for _ in range(2):
        box.replace_next()
    assert box.rollout.is_done(box.lives)
    assert box.has == {0: "new", 1: "new", 2: "new"}
    # One that goes down on the way is another matter.
    box.serve(box.lives[0])
    box.rollout.begin("newer")
    life = box.release()
    box.end(life)
    box.fork(life)
    box.end(life)
    assert box.rollout.failed(box.lives) is life
