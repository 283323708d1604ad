"""How many workers there are, and who is told of it in which order."""

import logging

import pytest

from millrace.master.scaling import Count
from millrace.master.slots import Life, Slots
from millrace.relay.contract.exits import Exit
from tests.unit.master.test_slots import CONFIG, Box, exited


class Counted:
    """A box whose kernel and whose slot table only write down what they are told."""

    def __init__(self, slots: int = 4, wanted: int = 1) -> None:
        self.box = Box()
        self.box.slots = self.slots = Slots(slots, CONFIG, wanted)
        self.told: list[str] = []
        self.kernel = ""
        self.closed: set[int] = set()
        self.refuses = False
        self.count = Count(self.slots, self, self)
        self.pass_time()

    def tell(self, opened: int, living: int) -> bool:
        line = f"kernel {opened} {living}"
        if line == self.kernel:
            return False
        if self.refuses:
            raise OSError(1, "no")
        self.told.append(line)
        self.kernel = line
        return True

    def write(self, life: Life) -> None:
        self.told.append(f"table {life.slot} {life.is_wanted}")

    def is_closed(self, slot: int) -> bool:
        return slot in self.closed

    def pass_time(self) -> None:
        """As the master's loop does it, until nothing more happens."""
        for _ in range(8):
            while self.count.step(self.box.now):
                pass
            self.box.fork_due()
            self.box.run_until(self.box.now + 1, *range(len(self.slots.lives)))
            self.count.place()


def test_the_kernel_gives_to_a_worker_only_when_it_serves() -> None:
    counted = Counted()
    counted.told.clear()
    counted.count.change(1)
    assert counted.count.step(counted.box.now) is not None
    counted.count.place()
    assert counted.told == ["table 1 True", "kernel 1 2"]
    counted.pass_time()
    assert counted.told == ["table 1 True", "kernel 1 2", "kernel 2 2"]


def test_the_kernel_gives_to_nobody_who_is_told_to_leave_and_forgets_the_slot_when_it_is_empty() -> None:
    counted = Counted(wanted=2)
    counted.told.clear()
    counted.count.change(-1)
    counted.count.step(counted.box.now)
    assert counted.told == ["kernel 1 2", "table 1 False"]
    counted.slots.reaped(counted.slots.lives[1].pid, exited(Exit.RETIRED), counted.box.now)
    counted.count.place()
    assert counted.told[-1] == "kernel 1 1"


def test_several_are_added_one_after_another() -> None:
    counted = Counted()
    for _ in range(3):
        counted.count.change(1)
    assert [counted.count.step(counted.box.now) is None for _ in range(3)] == [False, True, True]
    counted.pass_time()
    assert (counted.slots.wanted, counted.slots.opened) == (4, 4)
    assert counted.count.is_reached


def test_nobody_asks_for_none_or_for_more_than_there_is_room_for(caplog: pytest.LogCaptureFixture) -> None:
    counted = Counted(slots=2, wanted=1)
    with caplog.at_level(logging.WARNING):
        counted.count.change(-1)
        assert "the last worker stays" in caplog.text
        counted.count.change(1)
        counted.count.change(1)
        assert "made for 2" in caplog.text
        assert counted.count.goal == 2
        counted.count.set(5)
        assert "there is room for 2" in caplog.text
    assert counted.count.goal == 2


def test_a_worker_of_which_the_kernel_cannot_be_told_does_not_leave(caplog: pytest.LogCaptureFixture) -> None:
    counted = Counted(wanted=2)
    counted.told.clear()
    counted.refuses = True
    counted.count.change(-1)
    with caplog.at_level(logging.WARNING):
        counted.pass_time()
    assert counted.told == []
    assert (counted.slots.wanted, counted.count.goal) == (2, 2)
    assert caplog.text.count("the kernel cannot be told") == 1


def test_one_that_does_not_come_up_is_asked_for_no_more() -> None:
    counted = Counted()
    counted.count.change(1)
    counted.count.step(counted.box.now)
    while counted.slots.is_joining():
        counted.box.now = max(counted.box.now, counted.slots.lives[1].due_at)
        counted.box.fork_due()
        counted.slots.reaped(counted.slots.lives[1].pid, exited(Exit.BOOT_FAILED), counted.box.now)
    counted.count.give_up()
    counted.pass_time()
    assert (counted.slots.wanted, counted.count.goal) == (1, 1)


def test_nobody_leaves_whose_sessions_no_other_may_take(caplog: pytest.LogCaptureFixture) -> None:
    counted = Counted(wanted=3)
    counted.closed = {0}
    counted.count.change(-1)
    assert counted.count.goal == 2
    with caplog.at_level(logging.WARNING):
        counted.count.change(-1)
    assert "the others are drained" in caplog.text
    assert counted.count.goal == 2
