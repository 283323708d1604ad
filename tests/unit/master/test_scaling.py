"""How many workers there are, and who is told of it in which order."""

import logging

import pytest

from millrace.master.life import Life
from millrace.master.scaling import Scaling
from millrace.master.slots import Slots
from millrace.relay.contract.exits import Exit
from tests.unit.master.test_slots import CONFIG, Box, exited


class Scaled:
    """A box whose kernel and whose slot table only write down what they are told."""

    def __init__(self, slots: int = 4, wanted: int = 1) -> None:
        self.box = Box()
        self.box.slots = self.slots = Slots(slots, CONFIG, wanted)
        self.told: list[str] = []
        self.kernel = ""
        self.closed: set[int] = set()
        self.refuses = False
        self.scaling = Scaling(self.slots, self, self)
        self.pass_time()

    def tell(self, opened: int, living: int, down: frozenset[int]) -> bool:
        line = f"kernel {opened} {living}" + "".join(f" without {slot}" for slot in down)
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
            while self.scaling.step(self.box.now):
                pass
            self.box.fork_due()
            self.box.run_until(self.box.now + 1, *range(len(self.slots.lives)))
            self.scaling.tell_kernel()


def test_the_kernel_gives_to_a_worker_only_when_it_serves() -> None:
    scaled = Scaled()
    scaled.told.clear()
    scaled.scaling.change(1)
    assert scaled.scaling.step(scaled.box.now) is not None
    scaled.scaling.tell_kernel()
    assert scaled.told == ["table 1 True", "kernel 1 2"]
    scaled.pass_time()
    assert scaled.told == ["table 1 True", "kernel 1 2", "kernel 2 2"]


def test_the_kernel_gives_to_nobody_who_is_told_to_leave_and_forgets_the_slot_when_it_is_empty() -> None:
    scaled = Scaled(wanted=2)
    scaled.told.clear()
    scaled.scaling.change(-1)
    scaled.scaling.step(scaled.box.now)
    assert scaled.told == ["kernel 1 2", "table 1 False"]
    scaled.slots.reaped(scaled.slots.lives[1].pid, exited(Exit.RETIRED), scaled.box.now)
    scaled.scaling.tell_kernel()
    assert scaled.told[-1] == "kernel 1 1"


def test_several_are_added_one_after_another() -> None:
    scaled = Scaled()
    for _ in range(3):
        scaled.scaling.change(1)
    assert [scaled.scaling.step(scaled.box.now) is None for _ in range(3)] == [False, True, True]
    scaled.pass_time()
    assert (scaled.slots.wanted, scaled.slots.opened) == (4, 4)
    assert scaled.scaling.is_reached


def test_nobody_asks_for_none_or_for_more_than_there_is_room_for(caplog: pytest.LogCaptureFixture) -> None:
    scaled = Scaled(slots=2, wanted=1)
    with caplog.at_level(logging.WARNING):
        scaled.scaling.change(-1)
        assert "the last worker stays" in caplog.text
        scaled.scaling.change(1)
        scaled.scaling.change(1)
        assert "made for 2" in caplog.text
        assert scaled.scaling.goal == 2
        scaled.scaling.set(5)
        assert "made for 2" in caplog.text
    assert scaled.scaling.goal == 2


def test_a_worker_of_which_the_kernel_cannot_be_told_does_not_leave(caplog: pytest.LogCaptureFixture) -> None:
    scaled = Scaled(wanted=2)
    scaled.told.clear()
    scaled.refuses = True
    scaled.scaling.change(-1)
    with caplog.at_level(logging.WARNING):
        scaled.pass_time()
    assert scaled.told == []
    assert (scaled.slots.wanted, scaled.scaling.goal) == (2, 2)
    assert caplog.text.count("the kernel cannot be told") == 1


def test_one_that_does_not_come_up_is_asked_for_no_more() -> None:
    scaled = Scaled()
    scaled.scaling.change(1)
    scaled.scaling.step(scaled.box.now)
    while scaled.slots.is_joining():
        scaled.box.now = max(scaled.box.now, scaled.slots.lives[1].due_at)
        scaled.box.fork_due()
        scaled.slots.reaped(scaled.slots.lives[1].pid, exited(Exit.BOOT_FAILED), scaled.box.now)
    scaled.scaling.give_up()
    scaled.pass_time()
    assert (scaled.slots.wanted, scaled.scaling.goal) == (1, 1)


def test_nobody_leaves_whose_sessions_no_other_may_take(caplog: pytest.LogCaptureFixture) -> None:
    scaled = Scaled(wanted=3)
    scaled.closed = {0}
    scaled.scaling.change(-1)
    assert scaled.scaling.goal == 2
    with caplog.at_level(logging.WARNING):
        scaled.scaling.change(-1)
    assert "all others are drained" in caplog.text
    assert scaled.scaling.goal == 2
