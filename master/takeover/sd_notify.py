"""Tells the service manager how the server is (sd_notify(3)): ready, reloading, stopping, alive, and has it keep our
descriptors. It must never matter whether anybody listens. Read next: `deploy/millrace.service`, which asks to be told.
"""

import logging
import os
import select
import socket
import time
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from contextlib import suppress

log = logging.getLogger("millrace.master")

STORED = "millrace-"
"""Before the name of what is kept: a socket unit may use any other."""
_STORE_SECONDS = 2.0
_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notify:
    """The service manager's socket, or nothing. Its variables are taken out of the environment: workers have no say."""

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        self.environment = {name: environment[name] for name in _VARIABLES if name in environment}
        """As it was, for a program that takes our place."""
        path = environment.pop("NOTIFY_SOCKET", "")
        # An `@` stands for the zero byte of an abstract address.
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self.watchdog_seconds = _watchdog_seconds(environment)
        """How often to call `alive`, or None when nobody watches. Half of what is allowed, as sd_watchdog_enabled(3)
        recommends."""
        self._alive_at = 0.0

    def ready(self, status: str) -> None:
        """The server serves; also the end of `reloading`."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self, status: str = "Reading its configuration") -> None:
        """Until the next `ready`."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", f"STATUS={status}")

    def status(self, text: str) -> None:
        """A line for people."""
        self._send(f"STATUS={text}")

    def stopping(self, status: str, seconds: float) -> None:
        """The end has begun and may take so long, whatever the unit's own limit is."""
        self._send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}", f"STATUS={status}")

    def alive(self, now: float) -> None:
        """Call it at least every `watchdog_seconds`; says so no more often than that."""
        if self.watchdog_seconds is not None and now - self._alive_at >= self.watchdog_seconds / 2:
            self._alive_at = now
            self._send("WATCHDOG=1")

    def store(self, descriptors: Mapping[str, int]) -> None:
        """Has them kept for the next start, should we die. What is kept already is kept once."""
        # FDPOLL: a socket with an error that nobody has fetched yet would be dropped.
        self._all_of([(f"FDSTORE=1\nFDNAME={STORED}{name}\nFDPOLL=0", [each]) for name, each in descriptors.items()])

    def forget(self, names: Iterable[str]) -> None:
        """The next start shall begin anew. Returns when what was kept is closed: sockets hold their ports."""
        reading, writing = os.pipe()
        removals: list[tuple[str, list[int]]] = [(f"FDSTOREREMOVE=1\nFDNAME={STORED}{name}", []) for name in names]
        # Closed by the service manager when it has come so far (sd_notify_barrier(3)).
        is_told = bool(removals) and self._all_of([*removals, ("BARRIER=1", [writing])])
        os.close(writing)
        if is_told:
            poll = select.poll()
            poll.register(reading, 0)
            poll.poll(_STORE_SECONDS * 1000)
        os.close(reading)

    def _all_of(self, messages: Sequence[tuple[str, list[int]]]) -> bool:
        if not self._address:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
                # Its queue takes some ten messages, and none may be lost.
                speaker.settimeout(_STORE_SECONDS)
                speaker.connect(self._address)
                for text, descriptors in messages:
                    socket.send_fds(speaker, [text.encode()], descriptors)
        except OSError as error:
            log.warning("the service manager does not keep our descriptors: %s", error)
            return False
        return True

    def _send(self, *lines: str) -> None:
        if self._address:
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
                speaker.setblocking(False)
                speaker.sendto("\n".join(lines).encode(), self._address)


def _watchdog_seconds(environment: MutableMapping[str, str]) -> float | None:
    allowed, meant_for = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
    if not allowed.isdecimal() or int(allowed) == 0 or meant_for not in ("", str(os.getpid())):
        return None
    return int(allowed) / 1e6 / 2
