"""The respawn policy, in virtual time."""

import signal

import pytest

from millrace.master.slots import Slots
from millrace.master.watchdog import Beats, Kill
from millrace.relay.config.model import WorkersConfig
from millrace.relay.contract.exits import Exit
from millrace.relay.contract.layout import SlotState

CONFIG = WorkersConfig(
    respawn_backoff_ms=100,
    respawn_backoff_limit_ms=1000,
    quick_death_seconds=10,
    crash_limit=8,
    boot_seconds=30,
    beat_seconds=5,
)
KILLED = int(signal.SIGKILL)
"""A wait status: the signal stands in the low bits."""


def exited(code: int) -> int:
    """As waitpid gives an exit code."""
    return code << 8


class Box:
    """Slots with a clock and a fork that only counts."""

    def __init__(self, count: int = 1, config: WorkersConfig = CONFIG) -> None:
        self.slots = Slots(count, config)
        self.now = 1000.0
        self.pids = 0
        self.beating: dict[int, Beats] = {}

    def fork_due(self) -> list[int]:
        forked = []
        for life in self.slots.due(self.now):
            self.slots.next_incarnation(life)
            self.pids += 1
            self.slots.forked(life, self.pids, self.now)
            forked.append(life.slot)
        return forked

    def beat(self, *slots: int) -> None:
        for slot in slots:
            self.beating[slot] = Beats(self.now, self.now)

    def watch(self) -> list[Kill]:
        return self.slots.watch([self.beating.get(life.slot, Beats(0, 0)) for life in self.slots.lives], self.now)

    def run_until(self, end: float, *beating: int) -> list[Kill]:
        """Watches each second, while `beating` slots beat."""
        kills = []
        while self.now < end:
            self.now += 1
            self.beat(*beating)
            kills += self.watch()
        return kills


def test_every_slot_is_due_at_the_start_and_only_once() -> None:
    box = Box(3)
    assert box.fork_due() == [0, 1, 2]
    assert box.fork_due() == []
    assert [life.incarnation for life in box.slots.lives] == [1, 1, 1]


def test_worker_runs_when_both_its_loops_have_beaten() -> None:
    box = Box()
    box.fork_due()
    box.now += 1
    box.beating[0] = Beats(box.now, 0)
    box.watch()
    assert box.slots.lives[0].state is SlotState.STARTING
    box.beat(0)
    box.watch()
    assert box.slots.lives[0].state is SlotState.RUNNING
    assert box.slots.are_running()


def test_beats_of_the_life_before_do_not_count() -> None:
    box = Box()
    box.fork_due()
    box.run_until(box.now + 2, 0)
    box.slots.reaped(1, KILLED, box.now)
    box.now += 0.1
    box.fork_due()
    box.watch()
    assert box.slots.lives[0].state is SlotState.STARTING


def test_first_death_is_followed_by_a_fork_at_once() -> None:
    box = Box(2)
    box.fork_due()
    death = box.slots.reaped(2, KILLED, box.now)
    assert death is not None
    assert (death.slot, death.how, death.gives_up) == (1, "was ended by SIGKILL", None)
    assert box.slots.lives[1].state is SlotState.DEAD
    assert box.fork_due() == [1]
    assert box.slots.lives[1].incarnation == 2


def test_quick_deaths_wait_twice_as_long_each_time_up_to_the_limit() -> None:
    box = Box()
    waits = []
    for _ in range(7):
        box.fork_due()
        box.slots.reaped(box.pids, exited(Exit.CRASHED), box.now)
        waits.append(round(box.slots.lives[0].due_at - box.now, 3))
        box.now = box.slots.lives[0].due_at
    assert waits == [0, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_long_life_forgives_earlier_deaths() -> None:
    box = Box()
    for _ in range(3):
        box.fork_due()
        box.slots.reaped(box.pids, KILLED, box.now)
        box.now = box.slots.lives[0].due_at
    box.fork_due()
    box.now += 10
    box.slots.reaped(box.pids, KILLED, box.now)
    assert box.slots.lives[0].due_at == box.now


@pytest.mark.parametrize("code", [Exit.CRASHED, Exit.BOOT_FAILED, Exit.STOPPED])
def test_crash_loop_makes_the_master_give_up(code: Exit) -> None:
    box = Box()
    gave_up = []
    for _ in range(CONFIG.crash_limit):
        assert not any(gave_up)
        box.fork_due()
        death = box.slots.reaped(box.pids, exited(code), box.now)
        assert death is not None
        gave_up.append(death.gives_up)
        box.now = box.slots.lives[0].due_at
    assert "died 8 times in a row" in (gave_up[-1] or "")


def test_sessions_are_given_up_halfway_to_the_limit_when_workers_crash_and_not_when_somebody_kills_them() -> None:
    crashed = {Exit.CRASHED: exited(Exit.CRASHED), "aborted": signal.SIGABRT.value}
    spared = {Exit.BOOT_FAILED: exited(Exit.BOOT_FAILED), "killed": KILLED}
    for status in (*crashed.values(), *spared.values()):
        box = Box()
        adopts = []
        for _ in range(CONFIG.crash_limit - 1):
            box.fork_due()
            box.slots.reaped(box.pids, status, box.now)
            box.now = box.slots.lives[0].due_at
            adopts.append(box.slots.adopts(box.slots.lives[0]))
        assert adopts == [True] * 3 + [status in spared.values()] * 4
        box.fork_due()
        box.now += 10
        box.slots.reaped(box.pids, status, box.now)
        assert box.slots.adopts(box.slots.lives[0]) or status == exited(Exit.BOOT_FAILED)


def test_failed_boot_counts_however_long_it_took() -> None:
    box = Box()
    for _ in range(CONFIG.crash_limit):
        box.fork_due()
        box.now += 60
        death = box.slots.reaped(box.pids, exited(Exit.BOOT_FAILED), box.now)
        box.now = max(box.now, box.slots.lives[0].due_at)
    assert death is not None
    assert death.gives_up


def test_child_that_is_no_worker_is_nobodys_death() -> None:
    box = Box()
    box.fork_due()
    assert box.slots.reaped(99, KILLED, box.now) is None
    assert not box.slots.are_empty()


@pytest.mark.parametrize("silent", ["engine", "control loop"])
def test_silent_loop_is_aborted_and_then_killed(silent: str) -> None:
    box = Box(2)
    box.fork_due()
    box.run_until(1010, 0, 1)
    kills = []
    for _ in range(8):
        box.now += 1
        box.beat(0)
        box.beating[1] = Beats(1010, box.now) if silent == "engine" else Beats(box.now, 1010)
        kills += [(kill.slot, kill.signal, box.now, kill.reason) for kill in box.watch()]
    assert [kill[:3] for kill in kills] == [(1, signal.SIGABRT, 1015), (1, signal.SIGKILL, 1017)]
    assert silent in kills[0][3]
    assert box.slots.lives[0].state is SlotState.RUNNING


def test_silence_is_noticed_when_it_has_lasted_long_enough_and_not_at_the_next_look() -> None:
    box = Box(2)
    box.fork_due()
    box.run_until(1010, 0, 1)
    box.now = 1010.3
    box.beat(0)
    kills: list[Kill] = []
    while not kills:
        box.now = box.slots.next_deadline(box.now)
        box.beat(0)
        kills = box.watch()
    assert [(kill.slot, box.now) for kill in kills] == [(1, 1015)]


def test_worker_that_never_starts_is_aborted() -> None:
    box = Box()
    box.fork_due()
    kills = box.run_until(1040)
    assert [kill.signal for kill in kills] == [signal.SIGABRT, signal.SIGKILL]
    assert "not started within 30 s" in kills[0].reason


def test_worker_whose_engine_falls_silent_while_it_starts_is_aborted_at_once() -> None:
    box = Box()
    box.fork_due()
    box.now += 1
    box.beating[0] = Beats(box.now, 0)
    assert box.run_until(1005) == []
    assert [(kill.signal, box.now) for kill in box.run_until(1006)] == [(signal.SIGABRT, 1006)]


def test_machine_that_stood_still_aborts_nobody() -> None:
    box = Box(2)
    box.fork_due()
    box.run_until(1010, 0, 1)
    box.now += 600
    assert box.watch() == []
    box.now += 0.5
    box.beat(0, 1)
    assert box.watch() == []
    assert box.slots.are_running()


def test_workers_that_are_thawed_after_the_master_have_as_long_to_beat_as_ever() -> None:
    box = Box(2)
    box.fork_due()
    box.run_until(1010, 0, 1)
    box.now += 60
    # One look after the other, as each signal of a child that goes on ends the master's wait.
    for _ in range(9):
        assert box.watch() == []
        box.now += 0.5
        assert box.slots.next_deadline(box.now) > box.now
    box.beat(0)
    box.now += 0.5
    assert [(kill.slot, kill.signal) for kill in box.watch()] == [(1, signal.SIGABRT)]


def test_a_standstill_counts_for_no_limit_of_a_workers() -> None:
    box = Box(2)
    box.fork_due()
    box.run_until(1010, 0)
    box.slots.release(box.slots.lives[0], box.now)
    # One has released nothing yet, the other not started: 10 of 10 and 19 of 30 seconds are left.
    box.now += 60
    box.beat(0)
    assert box.watch() == []
    assert box.run_until(1079, 0) == []
    kills = box.run_until(1092, 0)
    assert [(kill.slot, kill.signal) for kill in kills] == [
        *((0, signal.SIGKILL), (1, signal.SIGABRT)),
    ]


def test_worker_that_releases_its_sessions_is_replaced_at_once_and_its_end_is_no_death_to_count() -> None:
    box = Box()
    for _ in range(CONFIG.crash_limit):
        box.fork_due()
        box.now += 0.5
        box.beat(0)
        box.watch()
        kill = box.slots.release(box.slots.lives[0], box.now)
        assert (kill.pid, kill.signal) == (box.pids, signal.SIGUSR2)
        assert box.slots.lives[0].state is SlotState.RELEASING
        death = box.slots.reaped(box.pids, exited(Exit.RELEASED), box.now)
        assert death is not None
        assert (death.how, death.was_asked, death.gives_up) == ("released its sessions", True, None)
        assert box.slots.lives[0].due_at == box.now


def test_worker_that_does_not_release_its_sessions_is_killed_and_replaced_at_once() -> None:
    box = Box()
    box.fork_due()
    box.run_until(1002, 0)
    box.slots.release(box.slots.lives[0], box.now)
    assert box.run_until(1011, 0) == []
    kills = box.run_until(1012, 0)
    assert [kill.signal for kill in kills] == [signal.SIGKILL]
    death = box.slots.reaped(1, KILLED, box.now)
    assert death is not None
    assert not death.was_asked
    assert box.slots.lives[0].quick_deaths == 0
    assert box.fork_due() == [0]


def test_worker_whose_engine_falls_silent_while_it_releases_its_sessions_is_aborted_at_once() -> None:
    box = Box()
    box.fork_due()
    box.run_until(1002, 0)
    box.slots.release(box.slots.lives[0], box.now)
    assert box.run_until(1006) == []
    assert [(kill.signal, box.now) for kill in box.run_until(1007)] == [(signal.SIGABRT, 1007)]


def test_stop_asks_then_kills_and_forks_no_more() -> None:
    box = Box(2)
    box.fork_due()
    assert [kill.signal for kill in box.slots.stop(box.now)] == [signal.SIGTERM, signal.SIGTERM]
    death = box.slots.reaped(1, exited(Exit.STOPPED), box.now)
    assert death is not None
    assert death.was_asked
    assert box.fork_due() == []
    assert not box.slots.are_empty()
    assert [(kill.pid, kill.signal) for kill in box.run_until(1006)] == [(2, signal.SIGKILL)]
    box.slots.reaped(2, KILLED, box.now)
    assert box.slots.are_empty()


def drained(box: Box, *answers: bool) -> bool:
    return box.slots.is_drained(list(answers), box.now)


def test_drain_ends_with_the_last_session_and_replaces_workers_until_then() -> None:
    box = Box(2)
    box.fork_due()
    box.run_until(1002, 0, 1)
    assert not drained(box, True, True), "nobody drains it"
    box.slots.drain(box.now)
    assert not drained(box, True, False)
    box.slots.reaped(2, KILLED, box.now)
    assert box.fork_due() == [1]
    assert not drained(box, True, False), "its sessions may go on in its successor"
    assert drained(box, True, True)


def test_drain_ends_at_its_deadline_and_a_second_one_does_not_move_it() -> None:
    box = Box(1)
    box.fork_due()
    box.run_until(1002, 0)
    box.slots.drain(box.now)
    box.now += 20
    box.slots.drain(box.now)
    box.now = 1031.9
    assert box.slots.next_deadline(box.now) <= 1032
    assert not drained(box, False)
    box.now = 1032
    assert drained(box, False)


def test_drain_does_not_wait_for_a_worker_that_never_served() -> None:
    box = Box(2)
    box.fork_due()
    box.run_until(1002, 0)
    box.slots.drain(box.now)
    assert not drained(box, False, False)
    assert drained(box, True, False)


def test_stop_ends_a_drain() -> None:
    box = Box(1)
    box.fork_due()
    box.run_until(1002, 0)
    box.slots.drain(box.now)
    box.slots.stop(box.now)
    assert not drained(box, True)
    assert [kill.signal for kill in box.slots.kill_all()] == [signal.SIGKILL]


def test_hurry_forks_no_more() -> None:
    box = Box(1)
    box.fork_due()
    assert [kill.signal for kill in box.slots.kill_all()] == [signal.SIGKILL]
    box.slots.reaped(1, KILLED, box.now)
    assert box.fork_due() == []
    assert box.slots.are_empty()


def test_next_deadline_is_never_later_than_the_next_thing_to_do() -> None:
    box = Box()
    assert box.slots.next_deadline(box.now) <= box.now
    box.fork_due()
    assert box.slots.next_deadline(box.now) <= box.now + 0.05, "a starting worker is watched closely"
    box.run_until(1002, 0)
    assert box.slots.next_deadline(box.now) == box.now + 1.0
    for _ in range(2):
        box.slots.reaped(box.pids, KILLED, box.now)
        assert box.slots.next_deadline(box.now) == box.slots.lives[0].due_at
        box.now = box.slots.lives[0].due_at
        box.fork_due()


def test_slots_of_another_master_go_on_with_their_next_life_and_living_ones_are_kept() -> None:
    box = Box(3)
    box.slots.inherit(0, 7, 0)
    box.slots.inherit(1, 4, 41)
    box.slots.inherit(2, 0, 0)
    assert [life.slot for life in box.slots.due(box.now)] == [0, 2]
    assert box.slots.next_incarnation(box.slots.lives[0]) == 8
    box.slots.drain(box.now)
    assert not drained(box, False, True, True), "its sessions wait for its next worker"
    assert drained(box, True, True, False)
    assert box.slots.reaped(41, KILLED, box.now) is not None
    assert [life.slot for life in box.slots.due(box.now)] == [0, 1, 2]


def living(box: Box, slot: int) -> int:
    """The process of the worker in a slot."""
    return box.slots.lives[slot].pid


def grown(slots: int = 3, wanted: int = 2) -> Box:
    """A box in which only the first slots have a worker, and serve."""
    box = Box()
    box.slots = Slots(slots, CONFIG, wanted)
    box.fork_due()
    box.run_until(box.now + 2, *range(wanted))
    return box


def test_only_slots_that_are_wanted_get_a_worker_and_are_waited_for() -> None:
    box = grown()
    assert [life.pid for life in box.slots.lives] == [1, 2, 0]
    assert box.slots.are_running()
    assert (box.slots.wanted, box.slots.opened, box.slots.living) == (2, 2, 2)
    assert box.slots.next_deadline(box.now) > box.now


def test_a_worker_that_is_added_is_open_when_it_serves() -> None:
    box = grown()
    assert box.slots.add(box.now).slot == 2
    assert (box.slots.wanted, box.slots.opened, box.slots.living) == (3, 2, 3)
    assert not box.slots.are_running()
    assert box.fork_due() == [2]
    assert box.slots.is_joining()
    box.run_until(box.now + 1, 0, 1, 2)
    assert not box.slots.is_joining()
    assert (box.slots.opened, box.slots.living) == (3, 3)
    assert box.slots.are_running()


def test_a_worker_that_is_not_wanted_lives_on_until_it_leaves_and_is_not_replaced() -> None:
    box = grown()
    assert box.slots.retire().slot == 1
    assert (box.slots.wanted, box.slots.opened, box.slots.living) == (1, 1, 2)
    assert box.run_until(box.now + 100, 0, 1) == []
    death = box.slots.reaped(living(box, 1), exited(Exit.RETIRED), box.now)
    assert death is not None
    assert (death.was_asked, death.how) == (True, "left its slot empty")
    assert box.slots.lives[1].state is SlotState.EMPTY
    assert box.slots.living == 1
    assert box.fork_due() == []
    assert box.slots.are_running()


@pytest.mark.parametrize("status", [KILLED, exited(Exit.RELEASED)])
def test_a_worker_that_is_not_wanted_and_dies_before_it_has_left_has_a_successor_that_leaves(status: int) -> None:
    box = grown()
    box.slots.retire()
    box.slots.reaped(living(box, 1), status, box.now)
    assert box.slots.living == 2, "its sessions' datagrams wait there"
    assert box.fork_due() == [1]
    assert not box.slots.lives[1].is_wanted
    box.run_until(box.now + 1, 0, 1)
    box.slots.reaped(living(box, 1), exited(Exit.RETIRED), box.now)
    assert box.fork_due() == []


def test_a_slot_that_is_wanted_again_keeps_its_worker_or_gets_the_next_at_once() -> None:
    box = grown()
    box.slots.retire()
    assert box.slots.add(box.now).slot == 1
    assert (box.slots.opened, box.slots.is_joining()) == (2, False), "somebody serves there"
    box.slots.retire()
    box.slots.add(box.now)
    box.slots.reaped(living(box, 1), exited(Exit.RETIRED), box.now)
    assert box.fork_due() == [1]


def test_a_worker_that_was_added_and_never_serves_is_given_up_and_all_else_goes_on() -> None:
    box = grown()
    box.slots.add(box.now)
    deaths = []
    while box.slots.is_joining():
        box.now = max(box.now, box.slots.lives[2].due_at)
        assert box.fork_due() == [2]
        deaths.append(box.slots.reaped(living(box, 2), exited(Exit.BOOT_FAILED), box.now))
    assert len(deaths) == CONFIG.crash_limit
    assert deaths[-1] is not None
    assert deaths[-1].gives_up
    assert not deaths[-1].is_fatal
    assert (box.slots.wanted, box.slots.living) == (2, 2)
    assert box.fork_due() == []
    assert box.slots.are_running()


def test_a_worker_that_was_added_and_is_taken_back_before_it_serves_is_not_tried_again() -> None:
    box = grown()
    box.slots.add(box.now)
    box.fork_due()
    assert box.slots.retire().slot == 2
    box.slots.reaped(living(box, 2), KILLED, box.now)
    assert box.slots.lives[2].state is SlotState.EMPTY
    assert box.fork_due() == []


@pytest.mark.parametrize("served_for", [1, CONFIG.quick_death_seconds])
def test_a_crash_loop_ends_the_server_unless_another_worker_has_served_for_a_while(served_for: int) -> None:
    box = grown()
    for life in box.slots.lives:
        life.born_at = box.now - served_for
    for _ in range(CONFIG.crash_limit):
        box.slots.lives[1].due_at = box.now
        box.fork_due()
        death = box.slots.reaped(living(box, 1), exited(Exit.BOOT_FAILED), box.now)
    assert death is not None
    if served_for == 1:
        assert (death.is_fatal, death.loops) == (True, None)
        assert death.gives_up
    else:
        assert (death.is_fatal, death.gives_up) == (False, None)
        assert "died 8 times in a row" in (death.loops or "")
        assert box.slots.lives[1].due_at == box.now + CONFIG.respawn_backoff_limit_ms / 1000


def test_an_empty_slot_of_another_master_is_left_empty() -> None:
    box = Box()
    box.slots = Slots(4, CONFIG, 2)
    for slot, incarnation, is_empty in ((0, 3, False), (1, 0, True), (2, 5, False), (3, 9, True)):
        box.slots.inherit(slot, incarnation, 0, is_empty)
    assert box.fork_due() == [0, 1, 2], "somebody's sessions wait in the third"
    assert box.slots.living == 3


def test_slot_that_cannot_be_forked_waits_twice_as_long_each_time_and_is_never_given_up() -> None:
    box = Box(2)
    life = box.slots.lives[0]
    waits = []
    for _ in range(3 * CONFIG.crash_limit):
        box.slots.next_incarnation(life)
        waits.append(box.slots.not_forked(life, box.now))
        assert life not in box.slots.due(box.now)
        box.now += waits[-1]
        assert life in box.slots.due(box.now)
    assert waits[:5] == [0.1, 0.2, 0.4, 0.8, 1.0]
    assert set(waits[5:]) == {1.0}
    assert box.fork_due() == [0, 1]
    assert life.incarnation == 1, "nobody lived meanwhile"
    box.slots.reaped(life.pid, KILLED, box.now + 20)
    box.slots.next_incarnation(life)
    assert box.slots.not_forked(life, box.now) == 0.1


def down(box: Box) -> list[int]:
    box.slots.find_down(box.now)
    return sorted(box.slots.down)


def test_a_slot_is_down_when_it_has_been_without_a_worker_that_serves_for_more_than_a_moment() -> None:
    box = Box(2)
    box.fork_due()
    box.run_until(1020, 0, 1)
    box.slots.reaped(2, KILLED, box.now)
    assert down(box) == []
    box.fork_due()
    assert box.slots.next_deadline(box.now) < box.now + 1
    box.now += 0.9
    assert down(box) == []
    box.now += 0.2
    assert down(box) == [1]
    box.run_until(box.now + 1, 0, 1)
    assert down(box) == []


def test_a_slot_whose_workers_die_one_after_the_other_is_down_at_once_and_nothing_waits_for_it() -> None:
    box = Box(2)
    box.fork_due()
    box.run_until(1020, 0, 1)
    for _ in range(2):
        box.slots.reaped(box.slots.lives[1].pid, KILLED, box.now)
        box.fork_due()
        assert not box.slots.is_stuck()
    box.slots.reaped(box.slots.lives[1].pid, KILLED, box.now)
    assert down(box) == [1]
    assert box.slots.is_stuck()
    assert not box.slots.are_running()
    # While it is tried, an upgrade would take the attempt for one that serves.
    box.now += 1
    box.fork_due()
    assert not box.slots.is_stuck()


def test_no_slot_is_down_when_nobody_serves() -> None:
    box = Box(2)
    box.fork_due()
    box.run_until(1020, 0, 1)
    for pid in (1, 2):
        box.slots.reaped(pid, KILLED, box.now)
    box.fork_due()
    box.now += 5
    assert down(box) == []
    assert box.slots.next_deadline(box.now) > box.now


def test_a_server_is_ready_without_a_worker_that_had_its_time_or_its_chances() -> None:
    box = Box(2)
    box.fork_due()
    box.run_until(1029, 0)
    assert not box.slots.serve_as_well_as_they_can(box.now)
    box.run_until(1031, 0)
    assert box.slots.serve_as_well_as_they_can(box.now)
    quick = Box(2)
    quick.fork_due()
    quick.run_until(1001, 0)
    for _ in range(CONFIG.crash_limit):
        assert not quick.slots.serve_as_well_as_they_can(quick.now)
        quick.slots.reaped(quick.slots.lives[1].pid, exited(Exit.BOOT_FAILED), quick.now)
        quick.now += 1
        quick.fork_due()
    assert quick.slots.serve_as_well_as_they_can(quick.now)
