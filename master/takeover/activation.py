"""What the service manager hands over at the start (sd_listen_fds(3)): sockets that it has bound, and what it has kept
for a master that died. It must never decide what becomes of them. Read next: `master/start/prepare.py`.
"""

import os
import socket
import stat
from collections.abc import MutableMapping
from dataclasses import dataclass

from millrace.master.takeover.sd_notify import STORED

FIRST = 3
"""The first descriptor after the standard streams (SD_LISTEN_FDS_START)."""


@dataclass(frozen=True, slots=True)
class Received:
    """All of it, sorted."""

    stored: dict[str, int]
    """By the names under which we had them kept."""
    activated: tuple[socket.socket, ...]


def received(environment: MutableMapping[str, str] = os.environ, first: int = FIRST) -> Received:
    """Takes it, and the variables out of the environment: nobody after us is meant."""
    meant_for, count = environment.pop("LISTEN_PID", ""), environment.pop("LISTEN_FDS", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if meant_for != str(os.getpid()) or not count.isdecimal():
        return Received({}, ())
    stored, activated = {}, []
    for offset in range(int(count)):
        descriptor, name = first + offset, names[offset] if offset < len(names) else ""
        os.set_inheritable(descriptor, False)
        if name.startswith(STORED):
            stored[name.removeprefix(STORED)] = descriptor
        elif stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            activated.append(socket.socket(fileno=descriptor))
    return Received(stored, tuple(activated))
