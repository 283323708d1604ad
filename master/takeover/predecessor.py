"""What a dead master's workers, or the service manager, hold for the next master: asks for it, checks it, and ends
those workers. Owns the receiving side of `workers/orphan.py`; must never make anything new, nor fork. Read next:
`master/start/prepare.py`, which goes on with what was inherited.

    directory locked, so no master lives -- a slot's lock is held --> its worker is orphaned, or about to notice
        takeover socket --> manifest, lock, arena, doorbells, sockets ...   (SCM_RIGHTS)
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
from millrace.master.takeover.runtime_directory import Runtime, living, takeover_sockets
from millrace.relay.config.model import Config
from millrace.relay.contract.takeover import Manifest, Unreadable, unpack, with_inherited

log = logging.getLogger("millrace.master")

ASK_SECONDS = 10.0
"""For any worker to answer, else all are killed. One that was just forked takes a second to reach its loop."""
ANSWER_SECONDS = 2.0
"""For each message of an answer, else another worker is asked."""
END_SECONDS = 10.0
"""From a signal to the end of the process. SIGTERM, with goodbyes to clients, is followed by SIGKILL then. SIGKILL
takes milliseconds, unless a disk hangs: a worker that still lives then keeps its slot.
"""
LOOK_SECONDS = 0.02
"""Between two attempts to get an answer."""
MAX_DESCRIPTORS = 253
"""In one message: SCM_MAX_FD of the kernel."""
_CREDENTIALS = struct.Struct("=iII")


class TakeoverRefused(Exception):
    """A dead master's workers can be neither taken over nor ended; the text says why."""


class NotInheritable(TakeoverRefused):
    """This program cannot go on with what another one has passed to it; the text says why."""


@dataclass(frozen=True, slots=True)
class Inherited:
    """What one master passes to the next: descriptors, and the manifest that says what they are."""

    manifest: Manifest
    descriptors: tuple[int, ...]
    """In the order of the manifest's names."""
    arena: Arena

    def by_name(self) -> dict[str, int]:
        """Returns the descriptors by the manifest's names."""
        return dict(zip(self.manifest.names(), self.descriptors, strict=True))

    def use_lock(self, lock: int) -> None:
        """Has the inherited lock file be the one that lies in the directory now: that of before may have been swept."""
        own = self.by_name()["lock"]
        if not os.path.samestat(os.fstat(own), os.fstat(lock)):
            os.dup2(lock, own, inheritable=False)

    def runtime(self) -> Runtime:
        """Returns the runtime directory, as the last master had it."""
        manifest = self.manifest
        return Runtime(Path(manifest.directory), self.by_name()["lock"], manifest.has_takeover_socket, manifest.is_ours)


def from_fdstore(by_name: Mapping[str, int]) -> Inherited | None:
    """Returns what the last master had the service manager store. Returns None when that is nothing, or unusable: then
    the last master's workers have been ended. Raises TakeoverRefused when that master still lives.
    """
    if not by_name:
        return None
    try:
        # The manifest says which others there are, and in which order.
        manifest = unpack(os.pread(by_name["manifest"], 1 << 20, 0))
        inherited = parse_inherited([by_name[name] for name in manifest.names()])
        # What the manifest does not name, nobody could give a meaning.
        close([each for name, each in by_name.items() if name not in manifest.names()], inherited.by_name()["lock"])
        lock(inherited.by_name()["lock"], 0)
    except (KeyError, NotInheritable, OSError, Unreadable) as error:
        log.warning("the stored descriptors are unusable, and the last master's sessions end: %s", error)
        if "lock" in by_name:
            end_orphans(by_name["lock"], signal.SIGTERM)
        close(list(by_name.values()))
        return None
    except Held as held:
        raise TakeoverRefused(
            f"process {held.pid} is the master whose descriptors the service manager has stored"
        ) from None
    return inherited


def from_orphans(runtime: Runtime) -> Inherited | None:
    """Returns what a dead master's workers hold. Returns None when no worker lives, or when what they hold is unusable:
    then they have been ended.
    """
    deadline = time.monotonic() + ASK_SECONDS
    while living(runtime.lock):
        if received := next(filter(None, map(_ask, takeover_sockets(runtime.directory))), None):
            try:
                return parse_inherited(received)
            except NotInheritable as error:
                log.warning("the last master's descriptors are unusable, and its sessions end: %s", error)
                close(received, runtime.lock)
                # SIGTERM, with which workers say goodbye: their clients come again, to us.
                end_orphans(runtime.lock, signal.SIGTERM)
                return None
        if time.monotonic() > deadline:
            log.warning("the last master's workers do not answer and are killed")
            end_orphans(runtime.lock, signal.SIGKILL)
            return None
        time.sleep(LOOK_SECONDS)
    return None


def parse_inherited(descriptors: Sequence[int]) -> Inherited:
    """Checks the descriptors, of which the first has the manifest. Raises NotInheritable, and leaves them open."""
    try:
        manifest = unpack(os.pread(descriptors[0], 1 << 20, 0))
        names = list(manifest.names())
        if len(names) != len(descriptors):
            raise Unreadable(f"it has {len(descriptors)} descriptors, not {len(names)}")
        then, _ = with_inherited(Config(), manifest)
        arena = Arena.inherit(descriptors[names.index("arena")], manifest.slots, then.arena)
    except (ArenaRefused, IndexError, OSError, Unreadable) as error:
        raise NotInheritable(str(error)) from error
    return Inherited(manifest, tuple(descriptors), arena)


def close(descriptors: list[int], lock: int | None = None) -> None:
    """Closes inherited descriptors, except those of the file of `lock`: closing any of these would end the lock."""
    for each in descriptors:
        if lock is None or not os.path.samestat(os.fstat(each), os.fstat(lock)):
            os.close(each)


def children(lock: int, noted: Mapping[int, int]) -> dict[int, int]:
    """Returns the living workers that are our own children, by slot: the program that was this process before forked
    them. `noted` are the process ids in the slot table, for a worker whose lock was swept and is not taken anew yet.
    """
    found = {}
    for slot in {*living(lock), *noted}:
        pid = holder(lock, 1 + slot) or noted.get(slot)
        with suppress(ChildProcessError):
            if pid and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                found[slot] = pid
    return found


def kill_orphan(lock: int, slot: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Kills the last master's worker in a slot and waits until it is gone. At a usual respawn it finds nobody, as a
    worker's death frees its slot's lock. Raises TakeoverRefused.
    """
    with _holder(lock, slot) as process:
        if process is not None:
            _signal(process, number)
            if not _ends(process, END_SECONDS):
                _signal(process, signal.SIGKILL)
                if not _ends(process, END_SECONDS):
                    raise TakeoverRefused(f"the last master's worker in slot {slot} cannot be killed")


def end_orphans(lock: int, number: signal.Signals) -> None:
    """Sends all workers of the last master a signal, and waits until they are gone. Raises TakeoverRefused."""
    for slot in living(lock):
        with _holder(lock, slot) as process:
            if process is not None:
                _signal(process, number)
    for slot in living(lock):
        kill_orphan(lock, slot, number)


@contextmanager
def _holder(lock: int, slot: int) -> Iterator[int | None]:
    """Gives a pidfd of the process that holds the slot, or None: its number alone may be another process's by now."""
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
    """Returns all descriptors that a worker passes; none when no worker does."""
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
            # The worker ends, or hangs: some of the descriptors are of no use.
            close(received)
            return []
