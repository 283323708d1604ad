"""A worker whose master is gone: it goes on, passes its descriptors to the next master that asks, and ends by itself
when none does. It must never pass them while its master lives. Read next: `master/takeover/predecessor.py`, which asks.

    master gone --> serves on, answers the next master --> killed by that one, which forks its successor
                        | no session is left on the box, or workers.orphan_seconds are over
                        +--> goodbye
"""

import asyncio
import logging
import os
import signal
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress

from millrace.relay.contract.boot import Boot
from millrace.relay.contract.takeover import TAKEOVER_SOCKET

log = logging.getLogger("millrace.worker")

IDLE_SECONDS = 2.0
"""Without a session on the box, then the worker ends. Workers hear of each other's sessions sooner than that."""
END_SECONDS = 30
"""For goodbyes and exit, once the time for orphans is over. Then SIGALRM ends the process."""
ANSWER_SECONDS = 1.0
"""For the next master to read a message, then it has to ask again: our loop stands still meanwhile."""
MAX_DESCRIPTORS = 250
"""In one message; the kernel takes 253."""
_CREDENTIALS = struct.Struct("=iII")


class Orphan:
    """Notices that the master is gone, and what follows from it."""

    def __init__(self, boot: Boot, sessions: Callable[[], int], end: Callable[[], None]) -> None:
        self._boot = boot
        self._sessions = sessions
        """How many there are on the whole box."""
        self._end = end
        self._since: float | None = None
        self._idle_since: float | None = None
        self._listener: socket.socket | None = None

    @property
    def is_orphaned(self) -> bool:
        """True when the master is gone."""
        return os.getppid() != self._boot.master

    def look(self) -> None:
        """Call it with each beat."""
        if not self.is_orphaned:
            return
        now = time.monotonic()
        if self._since is None:
            self._since = now
            self._become()
        if self._listener is not None:
            self._look_at_file()
        self._idle_since = None if self._sessions() else (self._idle_since or now)
        if self._idle_since is not None and now - self._idle_since >= IDLE_SECONDS:
            self._stop("no session is left")
        elif now - self._since >= self._patience():
            self._stop("no other master has come")

    def _patience(self) -> float:
        return self._boot.config.workers.orphan_seconds if self._boot.takeover_socket is not None else 0

    def _become(self) -> None:
        log.warning("the master is gone, and the worker waits for another one", extra={"seconds": self._patience()})
        # A loop that hangs is ended by the kernel, as no master watches it.
        signal.alarm(int(self._patience()) + END_SECONDS)
        if self._boot.takeover_socket is not None:
            self._boot.runtime_lock.look(may_make=True)
            self._listen(socket.socket(fileno=self._boot.takeover_socket))

    def _listen(self, listener: socket.socket) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            # Not closed, as its descriptor is among those that the next master gets.
            self._listener.detach()
        self._listener = listener
        asyncio.get_running_loop().add_reader(listener, self._answer)

    def _look_at_file(self) -> None:
        """Listens at a socket of our own when the file of the one that all share is gone."""
        shared = self._boot.runtime_directory / TAKEOVER_SOCKET
        own = shared.with_name(f"{TAKEOVER_SOCKET}-{self._boot.slot}")
        if shared.exists() or own.exists():
            return
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            listener.bind(str(own))
            listener.listen()
        except OSError:
            listener.close()
            return
        log.warning("the socket for the next master was swept, and another one is made", extra={"file": own.name})
        self._listen(listener)

    def _stop(self, why: str) -> None:
        log.error("the worker ends without a master: %s", why)
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener = None
        self._end()

    def _answer(self) -> None:
        assert self._listener is not None, "heard only while there is one"
        # All orphaned workers listen here, and another one may have been quicker.
        with suppress(BlockingIOError):
            successor, _ = self._listener.accept()
            with successor:
                pid, uid, _ = _CREDENTIALS.unpack(
                    successor.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
                )
                if uid != os.geteuid():
                    log.warning("another user's process wants to be the master", extra={"pid": pid, "uid": uid})
                    return
                log.warning("another master takes over", extra={"pid": pid})
                self._pass_descriptors(successor)

    def _pass_descriptors(self, successor: socket.socket) -> None:
        successor.settimeout(ANSWER_SECONDS)
        everything = self._boot.inherited
        try:
            for start in range(0, len(everything), MAX_DESCRIPTORS):
                socket.send_fds(successor, [b"some"], everything[start : start + MAX_DESCRIPTORS])
        except OSError as error:
            log.warning("descriptors cannot be passed to the next master", extra={"reason": str(error)})
