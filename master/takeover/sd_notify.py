"""Tells the service manager how the server is (sd_notify(3)): ready, reloading, stopping, alive, and has it store our
descriptors. No failure here must ever stop the server, as it may run without a service manager. Read next:
`master/takeover/activation.py`, which gets stored descriptors back.
"""

import logging
import os
import select
import socket
import time
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from contextlib import suppress

log = logging.getLogger("millrace.master")

FDSTORE_PREFIX = "millrace-"
"""Starts the FDNAME of each stored descriptor. A socket unit may use any other name."""
_STORE_SECONDS = 2.0
"""For the service manager to read a message, or to close what was stored. Then the server goes on without it."""
_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class ServiceManager:
    """The service manager's socket, or nothing. Its variables are taken out of the environment, so that no worker can
    speak for the server.
    """

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        self.environment = {name: environment[name] for name in _VARIABLES if name in environment}
        """The variables as they were, for a program that takes our place."""
        path = environment.pop("NOTIFY_SOCKET", "")
        # An `@` stands for the zero byte of an abstract address.
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self.watchdog_seconds = _watchdog_seconds(environment)
        """How often to call `alive`, or None without a watchdog. Half of what is allowed, as sd_watchdog_enabled(3)
        recommends."""
        self._alive_at = 0.0

    def ready(self, status: str) -> None:
        """Says that the server serves; it also ends `reloading`."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self, status: str = "Reading its configuration") -> None:
        """Says that the server reloads, until the next `ready`."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", f"STATUS={status}")

    def status(self, text: str) -> None:
        """Sets the line that `systemctl status` shows."""
        self._send(f"STATUS={text}")

    def stopping(self, status: str, seconds: float) -> None:
        """Says that the end has begun and may take `seconds`, whatever the unit's own limit is."""
        self._send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}", f"STATUS={status}")

    def alive(self, now: float) -> None:
        """Call it at least every `watchdog_seconds`; tells the watchdog no more often than that."""
        if self.watchdog_seconds is not None and now - self._alive_at >= self.watchdog_seconds / 2:
            self._alive_at = now
            self._send("WATCHDOG=1")

    def store(self, descriptors: Mapping[str, int]) -> None:
        """Has the descriptors stored for the next start, should we die. One that is stored already is stored once."""
        # FDPOLL=0: else the service manager drops a socket that has an error pending.
        self._all_of(
            [(f"FDSTORE=1\nFDNAME={FDSTORE_PREFIX}{name}\nFDPOLL=0", [each]) for name, each in descriptors.items()]
        )

    def forget(self, names: Iterable[str]) -> None:
        """Has stored descriptors closed, so that the next start begins anew. Returns when they are closed, as sockets
        hold their ports.
        """
        reading, writing = os.pipe()
        removals: list[tuple[str, list[int]]] = [
            (f"FDSTOREREMOVE=1\nFDNAME={FDSTORE_PREFIX}{name}", []) for name in names
        ]
        # The service manager closes `writing` when it has read all before it (sd_notify_barrier(3)).
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
                # The socket's queue takes some ten messages, and none may be lost: wait for room.
                speaker.settimeout(_STORE_SECONDS)
                speaker.connect(self._address)
                for text, descriptors in messages:
                    socket.send_fds(speaker, [text.encode()], descriptors)
        except OSError as error:
            log.warning("the service manager stores no descriptors: %s", error)
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
