"""The hot upgrade (SIGUSR2): whether the program that is now on disk could go on in our place. Owns the rehearsal, on
both sides; must never be what ends the old program. Read next: `master/takeover/reexec.py`.

    SIGUSR2 -> the new program beside us: configuration, inheritance, every import, an engine of its own; then it ends
        READY         -> we become it (exec): the same process, its workers still our children, then replaced
        INCOMPATIBLE  -> drain; when the last call is over, we become it with nothing
        anything else -> it is said in the log, and we go on
"""

import logging
import math
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module

from millrace.master.arena import Arena
from millrace.master.slots import describe
from millrace.master.start.certificate import CertificateRefused
from millrace.master.start.preload import SHARED
from millrace.master.start.prepare import Prepared, inherit
from millrace.master.start.spawn import flush
from millrace.master.takeover.predecessor import NotUnderstood, TakeoverRefused, understood
from millrace.master.takeover.reexec import Program
from millrace.master.takeover.sd_notify import Notify
from millrace.relay.config.model import Config
from millrace.workers import logs

log = logging.getLogger("millrace.master")

READY, INCOMPATIBLE = 90, 91
"""Exit statuses of a rehearsal. Not 0, with which any other program ends."""
INHERITED = "estate"
"""The name that a program of before knows them by, too."""
_WORKERS_OWN = ("uvloop", "zmq", "millrace.workers.worker", "millrace.workers.media")
"""What the master stays free of, but a rehearsal may import: it ends."""


class Upgrade:
    """The old program's side."""

    def __init__(self, program: Program, prepared: Prepared, notify: Notify) -> None:
        self.notify = notify
        self.verdict = 0
        """`READY` or `INCOMPATIBLE` once a rehearsal has said so."""
        self.is_due = False
        """The new program starts where the old one ends."""
        self._program = program
        self._inherited = {INHERITED: prepared.inherited.descriptors}
        self._pid = 0
        self._deadline = math.inf

    def begin(self, now: float, seconds: float) -> None:
        """Tries the new program, which has so long."""
        if self._pid:
            log.warning("an upgrade is under way")
            return
        flush()
        try:
            self._pid = self._program.rehearse(self._inherited)
        except OSError as error:
            log.warning("the new program cannot be tried, and the old one goes on: %s", error.strerror)
            return
        self._deadline = now + seconds
        log.info("an upgrade: the program on disk is tried", extra={"pid": self._pid})

    def next_deadline(self, now: float) -> float:
        """When to call `look`, at the latest."""
        return max(now, self._deadline)

    def look(self, now: float) -> None:
        """Ends a rehearsal that takes too long."""
        if now >= self._deadline:
            self._deadline = math.inf
            log.warning("the new program takes too long to come up", extra={"pid": self._pid})
            os.kill(self._pid, signal.SIGKILL)

    def reaped(self, pid: int, status: int) -> bool:
        """True for a child that was a rehearsal; `status` as waitpid gives it."""
        if pid != self._pid:
            return False
        self._pid, self._deadline = 0, math.inf
        code = os.waitstatus_to_exitcode(status)
        if code in (READY, INCOMPATIBLE):
            self.verdict = code
        else:
            log.warning("the new program does not come up, and the old one goes on: it %s", describe(code))
        return True

    def take_place(self, status: str) -> None:
        """The new program goes on in our place. Returns when it cannot."""
        self.verdict = 0
        log.info("an upgrade: the new program takes over")
        self.notify.reloading("A new program takes over")
        self._become(self._inherited, logging.WARNING)
        self.notify.ready(status)

    def start_anew(self) -> None:
        """The new program starts in our place, with nothing of ours. Returns when it cannot."""
        log.info("an upgrade: the new program starts")
        self._become({}, logging.ERROR)

    def _become(self, descriptors: Mapping[str, Sequence[int]], level: int) -> None:
        flush()
        try:
            self._program.become(descriptors, self.notify.environment)
        except OSError as error:
            log.log(level, "the new program cannot be started: %s", error.strerror)


def rehearse(config: Config, program: Program) -> int:
    """The new program's side: everything up to the first fork, and a worker's engine, without touching anything."""
    logs.set_up(config.log, "rehearsal")
    try:
        prepared = inherit(config, understood((program.left or {}).get(INHERITED, ())))
        for name in (*SHARED, *_WORKERS_OWN):
            import_module(name)
        _try_engine(prepared)
    except NotUnderstood as error:
        log.warning("the calls of the old program cannot go on in the new one: %s", error)
        return INCOMPATIBLE
    except (CertificateRefused, TakeoverRefused) as refusal:
        log.error("%s", refusal)
        return 1
    return READY


def _try_engine(prepared: Prepared) -> None:
    """Starts one in an arena of its own, so that Python and Rust are seen to be of one version."""
    from millrace.workers.media import Media

    # Its pages come when they are touched: these few.
    arena = Arena.make(prepared.slots, prepared.config.arena)
    # Those that are inherited would wake this engine in place of a worker's.
    bells = tuple(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(prepared.slots))
    boot = prepared.child(0, 1).boot
    media = Media(replace(boot, arena=arena.fd, doorbells=bells, media_sockets=(), flow_map=None))
    media.start()
    media.let_go()
