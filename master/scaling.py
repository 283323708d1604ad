"""How many workers there are to be, and the steps to that number: one worker more when the last one serves, one less at
once. Owns the order of a step (the kernel is told before the worker is); must never fork or kill a worker. Read next:
`master/slots.py`, which has the slots.

    more:  wanted --> forked --> serves --> open: the kernel gives it new clients
    less:  no longer open --> no longer wanted: the worker moves its sessions away and exits
"""

import logging
import os
from typing import Protocol

from millrace.master.life import Life
from millrace.master.slots import Slots

log = logging.getLogger("millrace.master")


class Kernel(Protocol):
    """Which slots the kernel may pick, as in `master/kernel/eligible.py`."""

    def tell(self, opened: int, living: int, down: frozenset[int]) -> bool:
        """Has new clients go to the first `opened` slots; the first `living` have a worker, but for those that are
        `down`. Raises OSError.
        """


class Table(Protocol):
    """The slot table, in which workers read what they are to do, as in `master/arena.py`."""

    def write(self, life: Life) -> None:
        """Writes a slot's row."""

    def is_closed(self, slot: int) -> bool:
        """True when an operator has drained the slot."""


class Scaling:
    """The number of workers that was asked for, and the way there."""

    def __init__(self, slots: Slots, kernel: Kernel, table: Table) -> None:
        self._slots = slots
        self._kernel = kernel
        self._table = table
        self.goal = slots.wanted
        self._refused: tuple[int, int, frozenset[int]] | None = None
        """What the kernel refused last, so that a refusal is logged once."""

    @property
    def is_reached(self) -> bool:
        """True when each wanted slot's worker is forked, and each other worker was told to leave."""
        return self.goal == self._slots.wanted

    def change(self, by: int) -> None:
        """Asks for `by` workers more than were asked for last; refuses with a log line."""
        goal, most = self.goal + by, len(self._slots.lives)
        if goal < 1:
            log.warning("the last worker stays; SIGTERM stops the server")
        elif goal > most:
            log.warning("no worker is added: sockets and shared memory are made for %s, until the next start", most)
        elif all(self._table.is_closed(slot) for slot in range(goal)):
            log.warning(
                "no worker is retired: all others are drained; `millrace drain --undo` has one take sessions again"
            )
        else:
            self.goal = goal
            log.info("one worker %s is wanted", "more" if by > 0 else "less", extra={"workers": goal})

    def set(self, goal: int) -> None:
        """Asks for `goal` workers, or for as many as there are slots."""
        most = len(self._slots.lives)
        if goal > most:
            log.warning("workers.count: sockets and shared memory are made for %s, until the next start", most)
        self.goal = min(goal, most)

    def give_up(self) -> None:
        """Stops on the way: the slots that are wanted now are enough."""
        self.goal = self._slots.wanted

    def step(self, now: float) -> Life | None:
        """Takes one step towards the goal, and returns the slot that it changed; None when no step is due yet."""
        if self.goal > self._slots.wanted and not self._slots.is_joining():
            life = self._slots.add(now)
            self._table.write(life)
            return life
        if self.goal >= self._slots.wanted:
            return None
        life = self._slots.retire()
        # Before the worker is told, so that no new client comes to one that leaves.
        if not self.tell_kernel():
            life.is_wanted = True
            self.give_up()
            return None
        self._table.write(life)
        return life

    def tell_kernel(self) -> bool:
        """Tells the kernel which slots it may pick, if that has changed; returns False when the kernel refuses."""
        slots = self._slots
        wanted = slots.opened, slots.living, slots.down
        try:
            self._kernel.tell(*wanted)
        except OSError as error:
            if self._refused != wanted:
                log.warning("the kernel cannot be told which slots get new clients: %s", os.strerror(error.errno or 0))
            self._refused = wanted
            return False
        self._refused = None
        return True
