"""Decides which worker is replaced next, until all have what the master gives to new ones (a target: configuration,
certificate). Is told of every fork, and must never kill or fork a worker by itself. Read next: `master/slots.py`, which
knows the state of each worker.

    begin --> a worker releases its sessions --its successor serves--> the next one ... --none is left--> done
                                                |
                                                +-- it ends before it serves --> back to the target before, and workers
                                                                                 with the new one are replaced once more
"""

from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

from millrace.master.life import Life
from millrace.relay.contract.layout import SlotState

T = TypeVar("T")


class Rollout(Generic[T]):
    """The target that each worker was started with, and the one that it is to have. `T` is compared by identity."""

    def __init__(self, first: T) -> None:
        self.target = first
        """What every worker that is forked from now on gets."""
        self.is_under_way = False
        self._fallback: T | None = None
        self._booted: dict[int, T | None] = {}
        self._excused: frozenset[int] = frozenset()
        """Slots that were down before: nobody waits for them, and what they die of is not the target."""

    def begin(self, target: T, down: Iterable[int] = ()) -> None:
        """Has every worker be replaced by one with `target`. Slots that are `down` get it when they are back."""
        self._excused = frozenset(down)
        # A second rollout may begin before the first is done. Only what all had before the first is known to work.
        if self._fallback is None:
            self._fallback = self.target
        self.target, self.is_under_way = target, True

    def inherit(self, slots: Iterable[int]) -> None:
        """Has the workers of another program in these slots replaced. There is no target to fall back to."""
        self._booted = dict.fromkeys(slots)
        self.is_under_way = bool(self._booted)

    def replace_config(self, target: T) -> None:
        """Sets a target that differs in nothing that workers use: none is replaced for it."""
        self._booted = {slot: target if had is self.target else had for slot, had in self._booted.items()}
        self.target = target

    def forked(self, slot: int) -> None:
        """Notes that the slot's worker was started with `target`."""
        self._booted[slot] = self.target

    def next(self, lives: Sequence[Life]) -> Life | None:
        """Returns the slot whose worker is to be replaced now; None while one is being replaced, and when all are."""
        needed = self._counted(lives)
        if any(life.state is not SlotState.RUNNING for life in needed):
            return None
        return next((life for life in needed if self._booted[life.slot] is not self.target), None)

    def is_done(self, lives: Sequence[Life]) -> bool:
        """True when all workers serve and have the target; then the rollout is no longer under way."""
        is_done = all(
            life.state is SlotState.RUNNING and self._booted[life.slot] is self.target for life in self._counted(lives)
        )
        if is_done:
            self._fallback, self.is_under_way = None, False
        return is_done

    def failed(self, lives: Sequence[Life]) -> Life | None:
        """Returns the slot whose new worker ended before it served; None without one."""
        if self._fallback is None:
            return None
        ended = (SlotState.DEAD, SlotState.STOPPING)
        return next(
            (
                life
                for life in self._counted(lives)
                if life.state in ended and not life.serves and self._booted.get(life.slot) is self.target
            ),
            None,
        )

    def fall_back(self) -> None:
        """Goes back to the target that worked before."""
        assert self._fallback is not None, "only a rollout that has begun can fail"
        self.target, self._fallback, self.is_under_way = self._fallback, None, True

    def _counted(self, lives: Sequence[Life]) -> list[Life]:
        return [
            life
            for life in lives
            if life.is_needed and (life.slot not in self._excused or life.state is SlotState.RUNNING)
        ]
