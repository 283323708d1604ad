"""How many workers there shall be, and the steps there: one worker more when the one before serves, one less at once.
Owns the order of a step (the kernel is told before the worker is); must never fork or end anybody. Read next:
`master/slots.py`, which has the slots, and `master/kernel/eligible.py`, which tells the kernel.

    more:  wanted --> forked --> serves --> open: the kernel gives to it
    less:  no longer open --> no longer wanted: its worker gives its sessions away and ends by itself
"""

import logging
import os
from typing import Protocol

from millrace.master.slots import Life, Slots

log = logging.getLogger("millrace.master")


class Told(Protocol):
    """The kernel's side of it, as in `master/kernel/eligible.py`."""

    def tell(self, opened: int, living: int) -> bool:
        """Who gets new clients, and who is there. Raises OSError."""


class Table(Protocol):
    """The workers' side of it, as in `master/arena.py`."""

    def write(self, life: Life) -> None:
        """What a slot is."""

    def is_closed(self, slot: int) -> bool:
        """Whether an operator wants no session there."""


class Count:
    """The number of workers that was asked for."""

    def __init__(self, slots: Slots, places: Told, table: Table) -> None:
        self._slots = slots
        self._places = places
        self._table = table
        self.goal = slots.wanted
        self._refused: tuple[int, int] | None = None
        """What the kernel did not take, so that it is said once."""

    @property
    def is_reached(self) -> bool:
        """All who were asked for are on their way or there, and all others know that they are not wanted."""
        return self.goal == self._slots.wanted

    def change(self, by: int) -> None:
        """One more or one less than was asked for last."""
        goal, most = self.goal + by, len(self._slots.lives)
        if goal < 1:
            log.warning("the last worker stays; TERM stops the server")
        elif goal > most:
            log.warning("no worker more: sockets and shared memory are made for %s; a restart can change that", most)
        elif all(self._table.is_closed(slot) for slot in range(goal)):
            log.warning("no worker less: the others are drained; `millrace drain --undo` has one take sessions again")
        else:
            self.goal = goal
            log.info("one worker %s", "more" if by > 0 else "less", extra={"workers": goal})

    def set(self, goal: int) -> None:
        """So many, or as many as there is room for."""
        most = len(self._slots.lives)
        if goal > most:
            log.warning("workers.count: there is room for %s; the next start makes more", most)
        self.goal = min(goal, most)

    def give_up(self) -> None:
        """What is wanted now has to do."""
        self.goal = self._slots.wanted

    def step(self, now: float) -> Life | None:
        """One worker more or less on the way to the goal; None when there is nothing to do yet."""
        if self.goal > self._slots.wanted and not self._slots.is_joining():
            life = self._slots.add(now)
            self._table.write(life)
            return life
        if self.goal >= self._slots.wanted:
            return None
        life = self._slots.retire()
        # First: nobody new comes to a worker that is told to leave.
        if not self.place():
            life.is_wanted = True
            self.give_up()
            return None
        self._table.write(life)
        return life

    def place(self) -> bool:
        """Tells the kernel what has changed; False when it does not take it."""
        slots = self._slots
        wanted = slots.opened, slots.living
        try:
            self._places.tell(*wanted)
        except OSError as error:
            if self._refused != wanted:
                log.warning("the kernel cannot be told who gets new clients: %s", os.strerror(error.errno or 0))
            self._refused = wanted
            return False
        self._refused = None
        return True
