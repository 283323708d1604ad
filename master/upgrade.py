"""The hot upgrade (SIGUSR2): whether the program that is now on disk could go on in our place. Owns the rehearsal, on
both sides. A failed upgrade must never end the old program. Read next: `master/takeover/reexec.py`, which starts the
new one.

    SIGUSR2 -> the new program beside us: configuration, inherited descriptors, every import, an engine; then it exits
        READY         -> exec of the new program: the same process, the workers still its children, then replaced
        INCOMPATIBLE  -> drain; when the last session is over, exec of the new program without descriptors
        anything else -> logged, and the old program goes on
"""

import logging
import math
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module

from millrace.master.arena import Arena
from millrace.master.life import describe
from millrace.master.start.certificate import CertificateRefused
from millrace.master.start.preload import LATER, WORKERS_OWN
from millrace.master.start.prepare import Prepared, inherit
from millrace.master.start.spawn import flush
from millrace.master.takeover.predecessor import NotInheritable, TakeoverRefused, parse_inherited
from millrace.master.takeover.reexec import Executable
from millrace.master.takeover.sd_notify import ServiceManager
from millrace.relay.config.model import Config
from millrace.workers import logs

log = logging.getLogger("millrace.master")

READY, INCOMPATIBLE = 90, 91
"""Exit statuses of a rehearsal. Not 0, with which any other program ends."""
INHERITED = "estate"
"""The name of the inherited descriptors between an old and a new program; it changes with the manifest's version."""


class Upgrade:
    """The old program's side."""

    def __init__(self, executable: Executable, prepared: Prepared, service_manager: ServiceManager) -> None:
        self.service_manager = service_manager
        self.verdict = 0
        """`READY` or `INCOMPATIBLE` once a rehearsal has said so, else 0."""
        self.is_due = False
        """True when the new program is to start as soon as the old one has ended."""
        self._executable = executable
        self._inherited = {INHERITED: prepared.inherited.descriptors}
        self._pid = 0
        self._deadline = math.inf

    def pass_on(self, descriptors: tuple[int, ...]) -> None:
        """Passes these descriptors to the new program, in place of those from the start."""
        self._inherited = {INHERITED: descriptors}

    def begin(self, now: float, seconds: float) -> None:
        """Starts a rehearsal of the new program, which may take `seconds`."""
        if self._pid:
            log.warning("an upgrade is under way already")
            return
        flush()
        try:
            self._pid = self._executable.rehearse(self._inherited)
        except OSError as error:
            log.warning("upgrade refused: the new program cannot be tried: %s", error.strerror)
            return
        self._deadline = now + seconds
        log.info("upgrade: the program on disk is tried", extra={"pid": self._pid})

    def next_deadline(self, now: float) -> float:
        """Returns when to call `end_overdue`, at the latest."""
        return max(now, self._deadline)

    def end_overdue(self, now: float) -> None:
        """Kills a rehearsal that takes too long."""
        if now >= self._deadline:
            self._deadline = math.inf
            log.warning("upgrade: the new program takes too long to start and is killed", extra={"pid": self._pid})
            os.kill(self._pid, signal.SIGKILL)

    def reaped(self, pid: int, status: int) -> bool:
        """True when the child was a rehearsal; `status` is as waitpid gives it."""
        if pid != self._pid:
            return False
        self._pid, self._deadline = 0, math.inf
        code = os.waitstatus_to_exitcode(status)
        if code in (READY, INCOMPATIBLE):
            self.verdict = code
        else:
            log.warning("upgrade refused: the new program does not start: it %s", describe(code))
        return True

    def take_place(self, status: str) -> None:
        """Has the new program go on in our place. Returns only when it cannot be started."""
        self.verdict = 0
        log.info("upgrade: the new program takes over")
        self.service_manager.reloading("A new program takes over")
        self._become(self._inherited, logging.WARNING)
        self.service_manager.ready(status)

    def start_anew(self) -> None:
        """Starts the new program in our place, without our descriptors. Returns only when it cannot be started."""
        log.info("upgrade: the new program starts")
        self._become({}, logging.ERROR)

    def _become(self, descriptors: Mapping[str, Sequence[int]], level: int) -> None:
        flush()
        try:
            self._executable.become(descriptors, self.service_manager.environment)
        except OSError as error:
            log.log(level, "upgrade: the new program cannot be started: %s", error.strerror)


def rehearse(config: Config, executable: Executable) -> int:
    """Does, in the new program, everything up to the first fork, and starts an engine, without a change to anything
    that the old program uses. Returns the exit status.
    """
    logs.set_up(config.log, "rehearsal")
    try:
        prepared = inherit(config, parse_inherited((executable.passed or {}).get(INHERITED, ())))
        for name in (*WORKERS_OWN, *LATER):
            import_module(name)
        _try_engine(prepared)
    except NotInheritable as error:
        log.warning("the old program's sessions cannot go on in the new one: %s", error)
        return INCOMPATIBLE
    except (CertificateRefused, TakeoverRefused) as refusal:
        log.error("%s", refusal)
        return 1
    return READY


def _try_engine(prepared: Prepared) -> None:
    """Starts an engine in an arena of its own, which shows that Python and Rust are of one version."""
    from millrace.workers.media import Media

    # Costs few pages, as a page is given when it is touched.
    arena = Arena.make(prepared.slots, prepared.config.arena)
    # The inherited doorbells would wake this engine in place of a worker's.
    bells = tuple(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(prepared.slots))
    boot = prepared.child(0, 1).boot
    media = Media(replace(boot, arena=arena.fd, doorbells=bells, media_sockets=(), flow_map=None, tcp=None))
    media.start()
    media.release()
