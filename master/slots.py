"""Decides what happens to a slot: when its worker is forked again, when a silent one is killed, when to give up. Is
told the time and every death, and must never fork, wait or kill by itself. Read next: `master/master.py`, which does.

    EMPTY --forked--> STARTING --both loops beat--> RUNNING
                         |  no beat in time, or        |  a beat is too old
                         |  the engine's is too old    |
                         +----------> STOPPING <-------+      SIGABRT, later SIGKILL
                                                       |  asked to release its sessions
                                         RELEASING <---+      SIGUSR2, later SIGKILL
    any of them --reaped--> DEAD --due--> forked again, at once or after a back-off; or the master gives up
                             DEAD, EMPTY --cannot be forked--> due again after a back-off

A slot: wanted --retire--> its worker moves its sessions away --RETIRED--> EMPTY --add--> wanted. A worker that dies on
the way is forked again, as its sessions are still there. The wanted slots are always the first ones, so that the kernel
needs one number.
The server as a whole: serves --drain--> opens no room, replaces workers still --last session or deadline--> stops.
"""

import math
import os
import signal

from millrace.master.life import Death, Life, describe
from millrace.master.watchdog import Beats, Kill, Watchdog, end
from millrace.relay.config.model import WorkersConfig
from millrace.relay.contract.exits import Exit
from millrace.relay.contract.layout import SlotState

RELEASE_SECONDS = 10.0
"""For a worker to release its sessions, then it is killed: twice what its slowest HTTP clients can make of it. Media
flows meanwhile.
"""

DOWN_SECONDS = 1.0
"""Without a worker that serves; then the slot is down, and what is new goes elsewhere. A respawn takes a tenth of it.
"""


class Slots:
    """All slots. Times are seconds on the monotonic clock."""

    def __init__(self, slots: int, config: WorkersConfig, wanted: int | None = None) -> None:
        self._config = config
        self.lives = [Life(slot, is_wanted=wanted is None or slot < wanted) for slot in range(slots)]
        self.is_stopping = False
        self.drain_until: float | None = None
        """When a draining server stops all workers, whatever they still serve; None while it does not drain."""
        self._watchdog = Watchdog(config)

    @property
    def wanted(self) -> int:
        """How many slots are to have a worker."""
        return sum(life.is_wanted for life in self.lives)

    @property
    def opened(self) -> int:
        """How many slots, from the first, get new clients."""
        return sum(life.is_wanted and not life.joins for life in self.lives)

    @property
    def living(self) -> int:
        """How many slots, from the first, have a worker or will soon have one."""
        return max((life.slot + 1 for life in self.lives if life.is_needed), default=0)

    @property
    def down(self) -> frozenset[int]:
        """The slots that are down."""
        return frozenset(life.slot for life in self.lives if life.is_down)

    def add(self, now: float) -> Life:
        """Has one more slot have a worker, and returns it: the first that is not wanted, empty or about to leave."""
        life = self.lives[self.wanted]
        life.is_wanted, life.quick_deaths, life.crashes = True, 0, 0
        life.joins = not life.pid and not life.has_served
        life.due_at = min(life.due_at, now)
        return life

    def retire(self) -> Life:
        """Has the last wanted slot have no worker, and returns it. Its worker reads that in the slot table."""
        life = self.lives[self.wanted - 1]
        life.is_wanted = life.joins = False
        return life

    def is_joining(self) -> bool:
        """True while a slot that was added does not serve yet."""
        return any(life.joins for life in self.lives)

    def inherit(self, slot: int, incarnation: int, pid: int, is_empty: bool = False) -> None:
        """Takes over a slot from another master. With `pid`, our child of that number serves its sessions; else they
        wait in the arena, unless its last worker has left it empty.
        """
        life = self.lives[slot]
        life.incarnation, life.has_served = incarnation, incarnation > 0 and not is_empty
        if pid:
            life.pid, life.state, life.serves = pid, SlotState.RUNNING, True

    def due(self, now: float) -> list[Life]:
        """Returns the slots to fork for now."""
        if self.is_stopping:
            return []
        return [life for life in self.lives if life.is_needed and not life.pid and life.due_at <= now]

    def configure(self, config: WorkersConfig) -> None:
        """Sets the policy from now on."""
        self._config = self._watchdog.config = config

    def clear_failures(self, life: Life, now: float) -> None:
        """Forgets a slot's quick deaths, as their cause is gone, and has it forked at once."""
        life.quick_deaths = life.crashes = 0
        life.due_at = now

    def adopts(self, life: Life) -> bool:
        """True when the slot's next worker adopts its sessions. One of the sessions may be what the workers crash of.
        After half of `crash_limit` the slot's sessions are dropped, so that the server need not stop.
        """
        return life.crashes < max(2, self._config.crash_limit // 2)

    def next_incarnation(self, life: Life) -> int:
        """Returns the number of the slot's next life; call it before the fork, as the child is told."""
        life.incarnation += 1
        return life.incarnation

    def forked(self, life: Life, pid: int, now: float) -> None:
        """Notes that the slot has a worker."""
        life.pid, life.born_at, life.kill_at, life.state = pid, now, None, SlotState.STARTING
        life.silent_at, life.serves, life.failed_forks = math.inf, False, 0
        life.away_since = min(life.away_since, now)

    def not_forked(self, life: Life, now: float) -> float:
        """Notes that the fork failed, and returns in how many seconds the slot is due again. A failed fork is never a
        reason to give up, as the machine's other programs may be its cause.
        """
        life.incarnation -= 1
        life.failed_forks += 1
        life.away_since = min(life.away_since, now)
        seconds = self._backoff(1 + life.failed_forks)
        life.due_at = now + seconds
        return seconds

    def reaped(self, pid: int, status: int, now: float) -> Death | None:
        """Notes that a child has ended, with `status` as waitpid gives it. Returns None when it was not a worker."""
        life = next((life for life in self.lives if life.pid == pid), None)
        if life is None:
            return None
        code = os.waitstatus_to_exitcode(status)
        has_left = code in (Exit.RELEASED, Exit.RETIRED)
        is_release = has_left or life.state is SlotState.RELEASING
        was_asked = has_left or (self.is_stopping and life.state is SlotState.STOPPING)
        was_replaced = code == Exit.RELEASED
        life.pid, life.state, life.away_since = 0, SlotState.DEAD, min(life.away_since, now)
        if code == Exit.RETIRED:
            life.has_served = False
        loop = None
        if is_release:
            life.due_at = now
        elif not self.is_stopping:
            loop = self._plan(life, code, now)
        goes_on = life.is_wanted and not life.joins and self._others_serve(life, now)
        gives_up, loops = (None, loop) if goes_on else (loop, None)
        is_fatal = bool(gives_up) and life.is_wanted and not life.joins
        if gives_up and not is_fatal:
            # The other workers go on without this slot.
            life.is_wanted = life.joins = life.has_served = False
        if not life.is_needed:
            life.state = SlotState.EMPTY
        return Death(
            life.slot, pid, life.incarnation, describe(code), was_asked, was_replaced, gives_up, is_fatal, loops
        )

    def watch(self, beats: list[Beats], now: float) -> list[Kill]:
        """Reads every worker's beats: notes which workers serve by now, and returns what has to be killed."""
        return self._watchdog.watch(self.lives, beats, now)

    def find_down(self, now: float) -> list[Life]:
        """Notes which slots are down, and returns those for which that has changed."""
        changed = []
        for life in self.lives:
            is_down = self._is_down(life, now)
            if is_down != life.is_down:
                life.is_down = is_down
                changed.append(life)
        return changed

    def release(self, life: Life, now: float) -> Kill:
        """Asks a worker to release its sessions; its successor, which adopts them, is due when it has exited."""
        kill = end(life, signal.SIGUSR2, now + RELEASE_SECONDS, "it is to release its sessions")
        life.state = SlotState.RELEASING
        return kill

    def drain(self, now: float) -> None:
        """Begins to let sessions run out. A worker that dies meanwhile is still replaced."""
        if self.drain_until is None:
            self.drain_until = now + self._config.drain_seconds

    def is_drained(self, drained: list[bool], now: float) -> bool:
        """True when a draining server may stop: no slot has a session, or the time is over. `drained` is what each
        slot's worker reports.
        """
        if self.drain_until is None or self.is_stopping:
            return False
        said = zip(self.lives, drained, strict=True)
        return now >= self.drain_until or all(is_empty or not life.has_served for life, is_empty in said)

    def stop(self, now: float) -> list[Kill]:
        """Begins the end of the server: no worker is forked again, and all are asked to stop."""
        self.is_stopping = True
        return [
            end(life, signal.SIGTERM, now + self._config.stop_seconds, "the server stops")
            for life in self.lives
            if life.pid
        ]

    def kill_all(self) -> list[Kill]:
        """Ends all workers at once."""
        self.is_stopping = True
        return [
            Kill(life.slot, life.pid, signal.SIGKILL, "the server stops at once") for life in self.lives if life.pid
        ]

    def are_empty(self) -> bool:
        """True when no worker lives."""
        return not any(life.pid for life in self.lives)

    def are_running(self) -> bool:
        """True when every worker serves."""
        return all(life.state is SlotState.RUNNING for life in self.lives if life.is_needed)

    def is_stuck(self) -> bool:
        """True when a slot is down, and everything else has come to rest: who waits for all workers to serve may wait
        for ever.
        """
        needed = [life for life in self.lives if life.is_needed]
        return any(life.is_down for life in needed) and all(
            life.state is SlotState.RUNNING or (life.is_down and not life.pid) for life in needed
        )

    def serve_as_well_as_they_can(self, now: float) -> bool:
        """True when a worker serves, and each other slot has had its time to start, or its chances."""
        config = self._config
        return any(life.state is SlotState.RUNNING for life in self.lives) and all(
            life.state is SlotState.RUNNING
            or now - life.away_since > config.boot_seconds
            or life.quick_deaths >= config.crash_limit
            for life in self.lives
            if life.is_needed
        )

    def next_deadline(self, now: float) -> float:
        """Returns when to call `due` and `watch` again, at the latest."""
        # 20 ms while a worker starts, as the server is ready when the last one serves.
        is_starting = any(life.state is SlotState.STARTING for life in self.lives)
        times = [now + (0.02 if is_starting else min(1.0, self._config.beat_seconds / 4))]
        if self.drain_until is not None and not self.is_stopping:
            times += [self.drain_until, now + 0.05]
        times += [life.kill_at for life in self.lives if life.pid and life.kill_at is not None]
        times += [life.silent_at for life in self.lives if life.state is SlotState.RUNNING]
        if not self.is_stopping:
            needed = [life for life in self.lives if life.is_needed]
            times += [life.due_at for life in needed if not life.pid]
            times += [at for life in needed if (at := life.away_since + DOWN_SECONDS) > now]
        return min(times)

    def _plan(self, life: Life, code: int, now: float) -> str | None:
        """Sets when the slot is due. Returns what is wrong when its workers die over and over, else None."""
        is_quick = now - life.born_at < self._config.quick_death_seconds
        life.quick_deaths = life.quick_deaths + 1 if is_quick or code == Exit.BOOT_FAILED else 0
        if not life.quick_deaths:
            life.crashes = 0
        elif code not in (Exit.BOOT_FAILED, -signal.SIGKILL):
            life.crashes += 1
        life.due_at = now + self._backoff(life.quick_deaths)
        if life.quick_deaths < self._config.crash_limit:
            return None
        last = describe(code)
        return f"worker {life.slot} died {life.quick_deaths} times in a row soon after its start; at last it {last}"

    def _others_serve(self, life: Life, now: float) -> bool:
        """True when another worker has served for `quick_death_seconds`: then the program works, and stopping the
        server would end that worker's sessions.
        """
        quick = self._config.quick_death_seconds
        others = (other for other in self.lives if other is not life and other.state is SlotState.RUNNING)
        return any(now - other.born_at >= quick for other in others)

    def _is_down(self, life: Life, now: float) -> bool:
        if not life.is_needed or life.joins or self.is_stopping:
            return False
        is_away = now - life.away_since >= (DOWN_SECONDS if life.quick_deaths <= 1 else 0)
        return is_away and any(other.state is SlotState.RUNNING for other in self.lives)

    def _backoff(self, times: int) -> float:
        if times <= 1:
            return 0.0
        # More doublings than these would make numbers that no limit allows.
        doubled: int = self._config.respawn_backoff_ms << min(times - 2, 32)
        return min(doubled, self._config.respawn_backoff_limit_ms) / 1000
