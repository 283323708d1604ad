"""What the service manager passes at the start (sd_listen_fds(3)): sockets that it has bound, and descriptors that a
dead master had it store. It must never decide what becomes of them. Read next: `master/takeover/predecessor.py`, which
checks the stored ones.
"""

import os
import socket
import stat
from collections.abc import MutableMapping
from dataclasses import dataclass

from millrace.master.takeover.sd_notify import FDSTORE_PREFIX

FIRST = 3
"""The first descriptor after the standard streams (SD_LISTEN_FDS_START)."""


@dataclass(frozen=True, slots=True)
class Received:
    """Everything that was passed, sorted."""

    stored: dict[str, int]
    """By the names under which they were stored."""
    activated: tuple[socket.socket, ...]


def received(environment: MutableMapping[str, str] = os.environ, first: int = FIRST) -> Received:
    """Returns what was passed to this process. Takes the variables out of the environment, as they are for no child of
    ours.
    """
    meant_for, count = environment.pop("LISTEN_PID", ""), environment.pop("LISTEN_FDS", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if meant_for != str(os.getpid()) or not count.isdecimal():
        return Received({}, ())
    stored, activated = {}, []
    for offset in range(int(count)):
        descriptor, name = first + offset, names[offset] if offset < len(names) else ""
        os.set_inheritable(descriptor, False)
        if name.startswith(FDSTORE_PREFIX):
            stored[name.removeprefix(FDSTORE_PREFIX)] = descriptor
        elif stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            activated.append(socket.socket(fileno=descriptor))
    return Received(stored, tuple(activated))
