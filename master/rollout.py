"""Decides which worker is replaced next, so that all get what the master hands out now. Is told of every fork, and must
never end or fork a worker by itself. Read next: `master/slots.py`, which knows how each is.

    begin --> a worker lets go --its successor serves--> the next one ... --none is left--> done
                                 |
                                 +-- it ends before it serves --> back to what was handed out before, those that had
                                                                  the new already are replaced once more
"""

from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

from millrace.master.slots import Life
from millrace.relay.contract.layout import SlotState

T = TypeVar("T")


class Rollout(Generic[T]):
    """What each worker was started with, and what it is to have. `T` is compared by identity."""

    def __init__(self, first: T) -> None:
        self.target = first
        """For every fork from now on."""
        self.is_under_way = False
        self._fallback: T | None = None
        self._booted: dict[int, T | None] = {}

    def begin(self, target: T) -> None:
        """Every worker is to have this."""
        # With a second one before the first is done, what all had before the first is what is known to work.
        if self._fallback is None:
            self._fallback = self.target
        self.target, self.is_under_way = target, True

    def inherit(self, slots: Iterable[int]) -> None:
        """Workers of another program live there. They are to be replaced, and there is nothing to fall back to."""
        self._booted = dict.fromkeys(slots)
        self.is_under_way = bool(self._booted)

    def exchange(self, target: T) -> None:
        """The same to workers: nobody is replaced for it."""
        self._booted = {slot: target if had is self.target else had for slot, had in self._booted.items()}
        self.target = target

    def forked(self, slot: int) -> None:
        """A worker was started with `target`."""
        self._booted[slot] = self.target

    def next(self, lives: Sequence[Life]) -> Life | None:
        """Whom to ask to let go now: nobody while one is on its way."""
        there = [life for life in lives if life.is_needed]
        if any(life.state is not SlotState.RUNNING for life in there):
            return None
        return next((life for life in there if self._booted[life.slot] is not self.target), None)

    def is_done(self, lives: Sequence[Life]) -> bool:
        """True when all workers serve and have what they are to have; then it is no longer under way."""
        is_done = all(
            life.state is SlotState.RUNNING and self._booted[life.slot] is self.target
            for life in lives
            if life.is_needed
        )
        if is_done:
            self._fallback, self.is_under_way = None, False
        return is_done

    def failed(self, lives: Sequence[Life]) -> Life | None:
        """A replacement that will not serve, if there is one."""
        if self._fallback is None:
            return None
        ended = (SlotState.DEAD, SlotState.STOPPING)
        return next(
            (
                life
                for life in lives
                if life.state in ended and not life.serves and self._booted.get(life.slot) is self.target
            ),
            None,
        )

    def fall_back(self) -> None:
        """Hands out again what worked before."""
        assert self._fallback is not None, "only what has begun can fail"
        self.target, self._fallback, self.is_under_way = self._fallback, None, True
