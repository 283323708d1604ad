"""The parent: forks the workers, waits for signals, forks again. It must never have a second thread, an event loop,
ZeroMQ's context or a running engine, as each of these would poison later forks. Read next: `master/slots.py`, which
decides what happens to a slot.
"""

import logging
import math
import os
import signal
import time
from collections.abc import Callable, Iterable

from setproctitle import setproctitle

from millrace.master.kernel.address_changes import AddressChanges
from millrace.master.kernel.sockets import BindRefused
from millrace.master.reload import Change, compare
from millrace.master.rollout import Rollout
from millrace.master.scaling import Scaling
from millrace.master.slots import Slots
from millrace.master.start.banner import banner
from millrace.master.start.certificate import CertificateRefused
from millrace.master.start.following import follow
from millrace.master.start.preload import preload
from millrace.master.start.prepare import Passed, Prepared, SteeringRefused, prepare, workers_wanted
from millrace.master.start.spawn import spawn
from millrace.master.start.startup import Startup
from millrace.master.start.streams import stop_waiting
from millrace.master.takeover.activation import received
from millrace.master.takeover.predecessor import TakeoverRefused, children, from_fdstore, kill_orphan
from millrace.master.takeover.reexec import Executable
from millrace.master.takeover.runtime_directory import DirectoryRefused
from millrace.master.takeover.sd_notify import ServiceManager
from millrace.master.upgrade import INCOMPATIBLE, INHERITED, Upgrade
from millrace.master.watchdog import Kill
from millrace.relay.config.model import Config
from millrace.relay.contract.layout import SlotState
from millrace.workers import logs

log = logging.getLogger("millrace.master")

_ASKED = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_COUNTED = {signal.SIGTTIN: 1, signal.SIGTTOU: -1}
"""How many workers more each of these signals asks for."""
_AWAITED = (*_ASKED, *_COUNTED, signal.SIGCHLD)
_END_SECONDS = 10.0
"""What the end may take beyond the time that workers have for it: sockets, files, a slow machine. The service manager
is told so, and kills what lasts longer.
"""
_LOOK_SECONDS = 1.0
"""Between two looks at the runtime directory, which somebody may sweep. Each worker is started after a look."""
_RETRY_SECONDS = 10.0
"""Until a slot is tried again whose last worker, another master's, could not be killed."""
_RETRY_ADDRESSES_SECONDS = 1.0
"""Until changed addresses are looked at again, while workers are being replaced."""
_TELL_SECONDS = 1.0
"""Until it is tried again to say how many lines of the log were dropped."""

ReadAgain = Callable[[], Config | tuple[str, ...]]
"""Returns the configuration as it is on disk now, or all its problems."""


def serve(config: Config, read_again: ReadAgain, startup: Startup, executable: Executable) -> int:
    """Runs the server until it is told to stop. Returns the exit status: 0 when it was told, 1 after an error."""
    service_manager = ServiceManager()
    setproctitle(f"millrace: master {' '.join(executable.command)}")
    stop_waiting()
    try:
        logs.set_up(config.log, "master")
    except OSError as error:
        startup.failed(f"log.file: {config.log.file} cannot be written: {error.strerror}")
        return 1
    # Blocked rather than handled, so that a signal ends the master's wait and interrupts nothing else.
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    # Ignored SIGCHLD is inherited from the process that started us. Then the kernel would reap the workers itself.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        activation = received()
        inherited = from_fdstore(activation.stored)
        # Else one FDNAME would name two descriptors, and what no manifest names would be kept for ever.
        service_manager.forget(activation.stored.keys() - (inherited.by_name().keys() if inherited else ()))
        reexec = (executable.passed or {}).get(INHERITED, ())
        with prepare(config, Passed(reexec, inherited, activation.activated)) as prepared:
            if not prepared.is_urgent:
                preload()
            descriptors = prepared.inherited.by_name()
            service_manager.store(descriptors)
            master = Master(prepared, read_again, startup, Upgrade(executable, prepared, service_manager))
            status = master.run()
            service_manager.forget(descriptors)
        if master.upgrade.is_due:
            master.upgrade.start_anew()
            status = 1
        return status
    except (BindRefused, CertificateRefused, DirectoryRefused, TakeoverRefused, SteeringRefused) as refusal:
        log.error("%s", refusal)
        startup.failed(str(refusal))
        return 1


class Master:
    """Waits for signals and deaths, and does what `Slots`, `Rollout`, `Scaling` and `Upgrade` decide."""

    def __init__(self, prepared: Prepared, read_again: ReadAgain, startup: Startup, upgrade: Upgrade) -> None:
        self._rollout = Rollout(prepared)
        self._read_again = read_again
        self._startup = startup
        self.upgrade = upgrade
        self._service_manager = upgrade.service_manager
        arena = prepared.arena
        self._slots = Slots(prepared.slots, prepared.config.workers, arena.wanted(prepared.slots))
        living = children(prepared.lock, arena.pids(prepared.slots))
        for slot in range(prepared.slots):
            self._slots.inherit(slot, arena.incarnation(slot), living.get(slot, 0), arena.is_empty(slot))
        self._rollout.inherit(living)
        self._scaling = Scaling(self._slots, prepared.eligible, arena)
        self._scaling.set(prepared.goal)
        self._files = prepared.files()
        self._look_at = 0.0
        self._address_changes = _address_changes()
        self._status = 0
        self._is_ready = False

    @property
    def _prepared(self) -> Prepared:
        """What new workers get, with the configuration that is in force now."""
        return self._rollout.target

    def run(self) -> int:
        """Forks, waits, forks again; returns the exit status when no worker is left."""
        started_at = time.monotonic()
        self._fork_due()
        # With sockets that were inherited this takes some milliseconds, in which clients without a worker would wait.
        self._scaling.tell_kernel()
        preload()
        self._startup.show_banner(banner(self._prepared))
        while not (self._slots.is_stopping and self._slots.are_empty()):
            now = time.monotonic()
            self._service_manager.alive(now)
            wait = min(self._slots.next_deadline(now) - now, self._service_manager.watchdog_seconds or 60.0)
            wait = min(wait, self.upgrade.next_deadline(now) - now, self._addresses_due(now) - now)
            wait = wait if logs.tell_dropped() else min(wait, _TELL_SECONDS)
            self._prepared.arena.add_lines_dropped(logs.newly_dropped())
            heard = signal.sigtimedwait(_AWAITED, max(0.0, wait))
            if heard is not None:
                self._handle_signal(heard.si_signo)
            # After every wait, as signals of one kind merge.
            self._reap()
            self._watch()
            self._find_down()
            self._upgrade()
            self._end_drain()
            self._follow_addresses()
            self._roll_out()
            self._scale()
            self._look_after_files(time.monotonic())
            self._fork_due()
            if not self._is_ready:
                self._look_whether_ready(started_at)
        log.info("stopped")
        return self._status

    def _look_whether_ready(self, started_at: float) -> None:
        now = time.monotonic()
        are_all = self._slots.are_running()
        if not are_all and not self._slots.serve_as_well_as_they_can(now):
            return
        self._is_ready = True
        self._startup.succeeded()
        self._service_manager.ready(self._status_line())
        if are_all:
            log.info("all workers serve", extra={"after_seconds": round(now - started_at, 2)})
        else:
            log.warning("the server is ready, and not all workers serve")

    def _handle_signal(self, number: int) -> None:
        match number:
            case signal.SIGQUIT:
                self.upgrade.is_due = False
                self._kill(self._slots.kill_all())
            case signal.SIGINT if self._slots.is_stopping:
                self._kill(self._slots.kill_all())
            case signal.SIGINT:
                log.info("stopping", extra={"signal": signal.Signals(number).name})
                self.upgrade.is_due = False
                self._stop()
            case signal.SIGTERM:
                self.upgrade.is_due = False
                self._drain()
            case signal.SIGHUP:
                self._reload()
            case signal.SIGTTIN | signal.SIGTTOU if self._is_ending:
                log.warning("the number of workers stays while the server ends")
            case signal.SIGTTIN | signal.SIGTTOU:
                self._scaling.change(_COUNTED[signal.Signals(number)])
            case signal.SIGUSR1:
                logs.reopen()
                self._signal_workers(signal.SIGUSR1)
            case signal.SIGUSR2 if self._is_ready and not self._is_ending:
                self.upgrade.begin(time.monotonic(), self._prepared.config.workers.boot_seconds)
            case signal.SIGUSR2:
                log.warning("an upgrade is refused while the server starts or ends")

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self.upgrade.reaped(pid, status):
                continue
            death = self._slots.reaped(pid, status, time.monotonic())
            if death is None:
                continue
            self._prepared.arena.write(self._slots.lives[death.slot])
            self._prepared.arena.count_end(death.slot, not death.was_asked, death.was_replaced)
            level = logging.DEBUG if death.was_asked else logging.WARNING
            fields = {"slot": death.slot, "pid": pid, "incarnation": death.incarnation}
            log.log(level, "worker %s", death.how, extra=fields)
            if not self._slots.lives[death.slot].is_needed:
                log.info("the slot is empty", extra={"slot": death.slot})
            if self._can_roll_out and self._rollout.failed(self._slots.lives):
                continue
            if death.loops:
                log.warning("crash loop in slot %s, retried with back-off: %s", death.slot, death.loops)
            elif death.gives_up and not death.is_fatal:
                log.warning("slot %s is not replaced: %s", death.slot, death.gives_up)
                self._scaling.give_up()
            elif death.gives_up and not self._slots.is_stopping:
                log.error("the server stops: %s", death.gives_up)
                self._status = 1
                self._startup.failed(f"the server stops: {death.gives_up}")
                self._stop()

    def _watch(self) -> None:
        beats = [self._prepared.arena.beats(life.slot) for life in self._slots.lives]
        self._kill(self._slots.watch(beats, time.monotonic()))
        for life in self._slots.lives:
            self._prepared.arena.write(life)

    def _find_down(self) -> None:
        for life in self._slots.find_down(time.monotonic()):
            self._prepared.arena.write(life)
            if life.is_down:
                log.warning("slot %s is down: new clients go to the other workers", life.slot)
            elif life.state is SlotState.RUNNING:
                log.info("slot %s serves again", life.slot)

    def _look_after_files(self, now: float) -> None:
        if now < self._look_at:
            return
        self._look_at = time.monotonic() + _LOOK_SECONDS
        if self._files.look(may_make=True):
            # What was stored under this name is a file that nobody finds any more.
            self._service_manager.forget(["lock"])
            self._service_manager.store({"lock": self._prepared.lock})

    def _addresses_due(self, now: float) -> float:
        at = self._address_changes.look_at() if self._address_changes is not None else None
        return math.inf if at is None else max(at, now)

    def _follow_addresses(self) -> None:
        """Has new workers serve the addresses that the box has now, when they are others than before."""
        now = time.monotonic()
        if self._address_changes is None:
            return
        self._address_changes.hear(now)
        if self._addresses_due(now) > now:
            return
        if not self._is_ready or self._is_ending or self._rollout.is_under_way:
            self._address_changes.look_again(now + _RETRY_ADDRESSES_SECONDS)
            return
        self._address_changes.looked()
        before = self._prepared
        try:
            followed = follow(before)
        except (BindRefused, OSError) as error:
            log.warning("media.bind: new addresses cannot be bound yet: %s", error)
            self._address_changes.look_again(now + _RETRY_SECONDS)
            return
        if followed is None:
            return
        if followed.inherited is not before.inherited:
            known, names = before.inherited.by_name(), followed.inherited.by_name()
            self._service_manager.forget(["manifest"])
            self._service_manager.store({name: each for name, each in names.items() if known.get(name) != each})
            self.upgrade.pass_on(followed.inherited.descriptors)
        self._rollout.begin(followed, self._slots.down)
        log.info("workers are replaced one after another, and their sessions go on")

    def _fork_due(self) -> None:
        due = self._slots.due(time.monotonic())
        if due:
            # Each will lock its slot there, and bind its sockets.
            self._look_after_files(math.inf)
        for life in due:
            try:
                # Only now, as clients of the last master's worker have no other until the fork below.
                kill_orphan(self._prepared.lock, life.slot)
            except (TakeoverRefused, OSError) as refusal:
                log.warning("slot %s has to wait: %s", life.slot, refusal)
                life.due_at = time.monotonic() + _RETRY_SECONDS
                continue
            adopts = self._slots.adopts(life)
            if not adopts:
                log.warning("sessions of slot %s are dropped: its workers crash again and again", life.slot)
            child = self._prepared.child(life.slot, self._slots.next_incarnation(life), adopts)
            # Read before the fork, so that the child's first beat is later.
            now = time.monotonic()
            try:
                pid = spawn(child)
            except OSError as error:
                again = self._slots.not_forked(life, now)
                why = f"{error.strerror}; next attempt in {again:.1f} s"
                log.warning("a worker cannot be forked: %s", why, extra={"slot": life.slot})
                continue
            self._slots.forked(life, pid, now)
            self._rollout.forked(life.slot)
            self._prepared.arena.write(life)
            log.info("worker started", extra={"slot": life.slot, "pid": pid, "incarnation": life.incarnation})

    @property
    def _is_ending(self) -> bool:
        return self._slots.is_stopping or self._slots.drain_until is not None

    def _upgrade(self) -> None:
        self.upgrade.end_overdue(time.monotonic())
        if self._is_ending or not self.upgrade.verdict:
            return
        if self.upgrade.verdict == INCOMPATIBLE:
            self.upgrade.is_due = True
            self._drain()
        elif self._slots.is_stuck() or (
            self._slots.are_running() and not self._rollout.is_under_way and self._scaling.is_reached
        ):
            self._tell_of_none_down()
            # Returns only when the exec failed.
            self.upgrade.take_place(self._status_line())

    def _tell_of_none_down(self) -> None:
        try:
            self._prepared.eligible.tell_of_none_down()
        except OSError as error:
            log.warning("slots that are down now will stay left out: %s", error.strerror)

    def _scale(self) -> None:
        """Brings the number of workers closer to what was asked for, once all serve and none is being replaced."""
        if self._is_ready and not self._is_ending and not self._rollout.is_under_way:
            while life := self._scaling.step(time.monotonic()):
                log.info("worker %s", "added" if life.is_wanted else "retired", extra={"slot": life.slot})
                self._service_manager.status(self._status_line())
        self._scaling.tell_kernel()

    def _drain(self) -> None:
        slots = self._slots
        if slots.drain_until is None and not slots.is_stopping:
            slots.drain(time.monotonic())
            assert slots.drain_until is not None
            self._prepared.arena.set_drain(self._prepared.slots, slots.drain_until)
            seconds = self._prepared.config.workers.drain_seconds
            log.info("draining", extra={"seconds": seconds})
            self._ends("Draining: no new room is opened", seconds + self._end_seconds())

    def _end_drain(self) -> None:
        if self._slots.is_drained(self._prepared.arena.drained(self._prepared.slots), time.monotonic()):
            log.info("stopping: no session is left, or workers.drain_seconds are over")
            self._stop()

    def _reload(self) -> None:
        if self._is_ready:
            self._service_manager.reloading()
        read = self._read_again()
        change = compare(self._prepared.config, read) if isinstance(read, Config) else read
        try:
            if isinstance(change, Change):
                self._apply(change)
            else:
                _refuse(map(str, change))
        except CertificateRefused as refusal:
            _refuse([str(refusal)])
        if self._address_changes is not None:
            self._address_changes.look_again(time.monotonic())
        if self._is_ready and not self._rollout.is_under_way:
            self._service_manager.ready(self._status_line())

    def _apply(self, change: Change) -> None:
        changed = self._prepared.with_config(change.in_force)
        applied = change.applied
        if changed.certificate != self._prepared.certificate:
            applied = tuple(dict.fromkeys([*applied, "dtls.certificate"]))
        needs_workers = change.needs_workers or applied != change.applied
        if needs_workers:
            self._rollout.begin(changed, self._slots.down)
        else:
            self._rollout.replace_config(changed)
        if "workers.count" in applied:
            self._scaling.set(workers_wanted(change.in_force))
        self._take_effect()
        log.info("configuration reloaded", extra={"applied": ", ".join(applied) or "nothing"})
        if needs_workers:
            log.info("workers are replaced one after another, and their sessions go on")
        if change.deferred:
            log.warning("these keys wait for the next start: %s", ", ".join(change.deferred))

    def _take_effect(self) -> None:
        """Applies what needs no new worker."""
        config = self._prepared.config
        self._slots.configure(config.workers)
        level = logging.getLevelNamesMapping()[config.log.level.upper()]
        logs.set_level(level)
        self._prepared.arena.set_log_level(self._prepared.slots, level)

    @property
    def _can_roll_out(self) -> bool:
        return self._rollout.is_under_way and not self._is_ending

    def _roll_out(self) -> None:
        if not self._can_roll_out:
            return
        now, lives = time.monotonic(), self._slots.lives
        if failed := self._rollout.failed(lives):
            self._rollout.fall_back()
            self._scaling.give_up()
            self._take_effect()
            self._slots.clear_failures(failed, now)
            log.warning("worker %s does not start with the new configuration, so the old one is in force", failed.slot)
        elif self._rollout.is_done(lives):
            log.info("all workers have the new configuration")
            self._service_manager.ready(self._status_line())
        elif life := self._rollout.next(lives):
            self._kill([self._slots.release(life, now)])

    def _signal_workers(self, number: signal.Signals) -> None:
        for life in self._slots.lives:
            if life.pid:
                os.kill(life.pid, number)

    def _status_line(self) -> str:
        count = self._slots.wanted
        return f"{count} worker{'s serve' if count > 1 else ' serves'}"

    def _end_seconds(self) -> float:
        return self._prepared.config.workers.stop_seconds + _END_SECONDS

    def _stop(self) -> None:
        self._ends("Stopping: sessions are closed", self._end_seconds())
        self._kill(self._slots.stop(time.monotonic()))

    def _ends(self, status: str, seconds: float) -> None:
        if self.upgrade.is_due:
            self._service_manager.status(f"{status}, before an upgrade")
        else:
            self._service_manager.stopping(status, seconds)

    def _kill(self, kills: list[Kill]) -> None:
        for kill in kills:
            if kill.signal not in (signal.SIGTERM, signal.SIGUSR2):
                fields = {"slot": kill.slot, "pid": kill.pid, "signal": kill.signal.name}
                log.warning("worker killed: %s", kill.reason, extra=fields)
            # The worker is not yet reaped, so the process id is still its own.
            os.kill(kill.pid, kill.signal)
            if kill.signal is signal.SIGABRT:
                # A stopped process (SIGSTOP) has to go on to write its traceback. SIGABRT is pending by then.
                os.kill(kill.pid, signal.SIGCONT)


def _address_changes() -> AddressChanges | None:
    try:
        return AddressChanges()
    except OSError as error:
        log.warning("addresses that change while the server runs are not followed: %s", error.strerror)
        return None


def _refuse(problems: Iterable[str]) -> None:
    for problem in problems:
        log.warning("the new configuration is refused and the old one stays: %s", problem)
