"""Finds what a dead master has left, and ends the workers that have kept it. Owns the receiving side of
`workers/orphan.py`; must never make anything new, nor fork. Read next: `master/prepare.py`, which takes an estate up.

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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from master.arena import Arena, ArenaRefused
from master.locks import holder
from master.runtime import HEIRS, Runtime
from relay.config import Config
from relay.estate import Manifest, Unreadable, settle, unpack
from relay.ids import MAX_SLOTS

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


class EstateRefused(Exception):
    """There is one, and we can neither take it up nor end it; the text says why."""


@dataclass(frozen=True, slots=True)
class Estate:
    """What was left, all there."""

    manifest: Manifest
    descriptors: tuple[int, ...]
    """In the order of the manifest's names."""
    arena: Arena

    def by_name(self) -> dict[str, int]:
        """Each descriptor."""
        return dict(zip(self.manifest.names(), self.descriptors, strict=True))


def find(runtime: Runtime) -> Estate | None:
    """What living workers of a dead master have kept; None when there are none, or what they have is of no use to us:
    then they have been ended.
    """
    end = time.monotonic() + ASK_SECONDS
    while orphans(runtime.lock):
        received = _ask(runtime.directory / HEIRS)
        if received:
            estate = understood(received)
            if estate is None:
                # Politely: their clients come again, to us.
                end_all(runtime.lock, signal.SIGTERM)
            return estate
        if time.monotonic() > end:
            log.error("workers of a dead master do not answer, and are ended")
            end_all(runtime.lock, signal.SIGKILL)
            return None
        time.sleep(LOOK_SECONDS)
    return None


def understood(descriptors: list[int]) -> Estate | None:
    """An estate of these, the manifest first; None, logged and closed, when it is not one for this program."""
    try:
        manifest = unpack(os.pread(descriptors[0], 1 << 20, 0))
        missing = len(list(manifest.names())) - len(descriptors)
        if missing > 0:
            raise Unreadable(f"it lacks {missing} descriptors")
        by_name = dict(zip(manifest.names(), descriptors, strict=True))
        then, _ = settle(Config(), manifest)
        arena = Arena.inherit(by_name["arena"], manifest.slots, then.arena)
    except (ArenaRefused, OSError, Unreadable) as error:
        log.warning("what the last master has left cannot be taken up, and its calls end: %s", error)
        close(descriptors)
        return None
    return Estate(manifest, tuple(descriptors), arena)


def close(descriptors: list[int]) -> None:
    """Lets an estate go. Locks of ours on its lock file go too."""
    for each in descriptors:
        os.close(each)


def orphans(lock: int) -> list[int]:
    """Slots in which another process lives."""
    return [slot for slot in range(MAX_SLOTS) if holder(lock, 1 + slot) is not None]


def end(lock: int, slot: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Ends the process that holds the slot, if any, and waits until it is gone. Raises EstateRefused."""
    with _holder(lock, slot) as process:
        if process is not None:
            _signal(process, number)
            if not _ends(process, END_SECONDS):
                _signal(process, signal.SIGKILL)
                if not _ends(process, END_SECONDS):
                    raise EstateRefused(f"a worker of the last master cannot be ended; it holds slot {slot}")


def end_all(lock: int, number: signal.Signals) -> None:
    """The same for all slots at once."""
    for slot in orphans(lock):
        with _holder(lock, slot) as process:
            if process is not None:
                _signal(process, number)
    for slot in orphans(lock):
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
            # It ends, or hangs: half of an estate is none.
            close(received)
            return []
