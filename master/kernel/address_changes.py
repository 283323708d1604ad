"""Hears from the kernel that the box's addresses may have changed (rtnetlink(7)). Owns that socket; must never say what
has changed: who hears of it asks for all addresses. Read next: `master/start/following.py`.

    the kernel --a message for each address--> a queue --SIGCHLD--> the master, which waits for signals only
"""

import fcntl
import os
import signal
import socket
from contextlib import suppress

_GROUPS = 0x10 | 0x100
"""RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR, linux/rtnetlink.h."""
_SET_SIGNAL = 10
"""F_SETSIG, fcntl(2)."""
SETTLE_SECONDS = 0.5
"""Without a change, until the addresses are looked at: an interface that comes up gets several, one after another."""
LONGEST_SECONDS = 3.0
"""Until they are looked at however often they change."""


class AddressChanges:
    """The kernel's messages, and when to look at the addresses."""

    def __init__(self) -> None:
        """Raises OSError."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        self._socket.bind((0, _GROUPS))
        # A signal that wakes the master anyway, and that nothing takes for an order.
        fcntl.fcntl(self._socket, _SET_SIGNAL, signal.SIGCHLD)
        fcntl.fcntl(self._socket, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(self._socket, fcntl.F_SETFL, fcntl.fcntl(self._socket, fcntl.F_GETFL) | os.O_ASYNC)
        self._first_at: float | None = None
        """When the first change came that was not looked at."""
        self._last_at = 0.0

    def hear(self, now: float) -> None:
        """Takes what has come."""
        if self._is_heard():
            self._first_at = now if self._first_at is None else self._first_at
            self._last_at = now

    def look_at(self) -> float | None:
        """Returns when the addresses are to be looked at; None without a change."""
        if self._first_at is None:
            return None
        return min(self._last_at + SETTLE_SECONDS, self._first_at + LONGEST_SECONDS)

    def looked(self) -> None:
        """Notes that they were."""
        self._first_at = None

    def look_again(self, at: float) -> None:
        """Has the addresses be looked at again, without a change."""
        self._first_at = at - LONGEST_SECONDS
        self._last_at = at

    def close(self) -> None:
        """Hears no more."""
        self._socket.close()

    def _is_heard(self) -> bool:
        is_heard = False
        with suppress(BlockingIOError):
            while True:
                try:
                    is_heard = bool(self._socket.recv(1 << 16)) or is_heard
                except OSError as error:
                    if isinstance(error, BlockingIOError):
                        raise
                    # ENOBUFS: messages were lost, which were changes.
                    is_heard = True
        return is_heard
