"""Finds what a dead master has left, and ends the workers that have kept it. Owns the receiving side of
`workers/orphan.py`; must never make anything new, nor fork. Read next: `master/start/prepare.py`, which goes
on with it.

    directory locked, so no master lives -- a slot's lock is held --> its worker: an orphan, or about to notice
        heirs socket --> manifest, lock, arena, doorbells, sockets ...   (SCM_RIGHTS)
        just before a slot's successor is forked: SIGKILL --> the slot's lock is free
"""

import logging
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from millrace.master.arena import Arena, ArenaRefused
from millrace.master.takeover.locks import Held, holder, lock
from millrace.master.takeover.runtime_directory import TAKEOVER_SOCKET, Runtime, living
from millrace.relay.config.model import Config
from millrace.relay.contract.takeover import Manifest, Unreadable, unpack, with_inherited

log = logging.getLogger("millrace.master")

ASK_SECONDS = 10.0
"""For some worker to answer: one that was just forked takes a second to its loop."""
ANSWER_SECONDS = 2.0
"""For one answer that has begun."""
END_SECONDS = 10.0
"""From SIGKILL to the end, which takes milliseconds but for a disk that hangs; a goodbye takes less, too."""
LOOK_SECONDS = 0.02
MAX_DESCRIPTORS = 253
"""Of one message: SCM_MAX_FD of the kernel."""
_CREDENTIALS = struct.Struct("=iII")


class TakeoverRefused(Exception):
    """There is one, and we can neither take it up nor end it; the text says why."""


class NotUnderstood(TakeoverRefused):
    """What was left is not for this program; the text says why."""


@dataclass(frozen=True, slots=True)
class Inherited:
    """What was left, all there."""

    manifest: Manifest
    descriptors: tuple[int, ...]
    """In the order of the manifest's names."""
    arena: Arena

    def by_name(self) -> dict[str, int]:
        """Each descriptor."""
        return dict(zip(self.manifest.names(), self.descriptors, strict=True))

    def runtime(self) -> Runtime:
        """Its directory, as its master had it."""
        left = self.manifest
        return Runtime(Path(left.directory), self.by_name()["lock"], left.has_takeover_socket, left.is_ours)


def stored(by_name: Mapping[str, int]) -> Inherited | None:
    """What the service manager has kept of the last master; None when that is nothing, or of no use to us: then workers
    that live on have been ended.
    """
    if not by_name:
        return None
    try:
        # The manifest says which others there are, and in which order.
        manifest = unpack(os.pread(by_name["manifest"], 1 << 20, 0))
        inherited = understood([by_name[name] for name in manifest.names()])
        lock(inherited.by_name()["lock"], 0)
    except (KeyError, NotUnderstood, OSError, Unreadable) as error:
        log.warning("what the service manager has kept cannot be taken up, and its calls end: %s", error)
        if "lock" in by_name:
            end_all(by_name["lock"], signal.SIGTERM)
        close(list(by_name.values()))
        return None
    except Held as held:
        raise TakeoverRefused(f"process {held.pid} is the master of what the service manager has kept") from None
    return inherited


def find(runtime: Runtime) -> Inherited | None:
    """What living workers of a dead master have kept; None when there are none, or what they have is of no use to us:
    then they have been ended.
    """
    end = time.monotonic() + ASK_SECONDS
    while living(runtime.lock):
        if received := _ask(runtime.directory / TAKEOVER_SOCKET):
            try:
                return understood(received)
            except NotUnderstood as error:
                log.warning("what the last master has left cannot be taken up, and its calls end: %s", error)
                close(received, runtime.lock)
                # Politely: their clients come again, to us.
                end_all(runtime.lock, signal.SIGTERM)
                return None
        if time.monotonic() > end:
            log.warning("workers of a dead master do not answer, and are ended")
            end_all(runtime.lock, signal.SIGKILL)
            return None
        time.sleep(LOOK_SECONDS)
    return None


def understood(descriptors: Sequence[int]) -> Inherited:
    """What these descriptors are, the manifest first. Raises NotUnderstood, and leaves them open."""
    try:
        manifest = unpack(os.pread(descriptors[0], 1 << 20, 0))
        names = list(manifest.names())
        if len(names) != len(descriptors):
            raise Unreadable(f"it has {len(descriptors)} descriptors, not {len(names)}")
        then, _ = with_inherited(Config(), manifest)
        arena = Arena.inherit(descriptors[names.index("arena")], manifest.slots, then.arena)
    except (ArenaRefused, IndexError, OSError, Unreadable) as error:
        raise NotUnderstood(str(error)) from error
    return Inherited(manifest, tuple(descriptors), arena)


def close(descriptors: list[int], lock: int | None = None) -> None:
    """Closes inherited descriptors, but for what shares a file with `lock`: that lock would end."""
    for each in descriptors:
        if lock is None or not os.path.samestat(os.fstat(each), os.fstat(lock)):
            os.close(each)


def children(lock: int) -> dict[int, int]:
    """Living workers that are our own children, by slot: of the program that was this process before."""
    found = {}
    for slot in living(lock):
        pid = holder(lock, 1 + slot)
        with suppress(ChildProcessError):
            if pid and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                found[slot] = pid
    return found


def end(lock: int, slot: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Ends the process that holds the slot, if any, and waits until it is gone. Raises TakeoverRefused."""
    with _holder(lock, slot) as process:
        if process is not None:
            _signal(process, number)
            if not _ends(process, END_SECONDS):
                _signal(process, signal.SIGKILL)
                if not _ends(process, END_SECONDS):
                    raise TakeoverRefused(f"a worker of the last master cannot be ended; it holds slot {slot}")


def end_all(lock: int, number: signal.Signals) -> None:
    """The same for all slots at once."""
    for slot in living(lock):
        with _holder(lock, slot) as process:
            if process is not None:
                _signal(process, number)
    for slot in living(lock):
        end(lock, slot, number)


@contextmanager
def _holder(lock: int, slot: int) -> Iterator[int | None]:
    """A descriptor of the process that holds the slot: its number alone may be another's by now."""
    pid = holder(lock, 1 + slot)
    process = None
    if pid:
        with suppress(ProcessLookupError):
            process = os.pidfd_open(pid)
    try:
        yield process if process is not None and holder(lock, 1 + slot) == pid else None
    finally:
        if process is not None:
            os.close(process)


def _signal(process: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(process, number)


def _ends(process: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _ask(path: Path) -> list[int]:
    """Everything that a worker gives; nothing when none does."""
    received: list[int] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
        asking.settimeout(ANSWER_SECONDS)
        try:
            asking.connect(str(path))
            _, uid, _ = _CREDENTIALS.unpack(asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
            if uid != os.geteuid():
                return []
            while True:
                text, descriptors, _, _ = socket.recv_fds(asking, 16, MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
                received += descriptors
                if not text:
                    return received
        except OSError:
            # It ends, or hangs: half of it serves nobody.
            close(received)
            return []
