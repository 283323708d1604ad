"""Which slots the kernel may pick: an open slot gets new connections and new flows, a living one the datagrams of its
own sessions. It must never decide which slots live. Read next: `master/kernel/steering.py` for media that the kernel
steers, `master/kernel/reuseport.py` for all else.

                            worker serves (open)   worker leaves (living)  no worker, or down
    new connections, flows  yes                    no                      no
    its sessions' datagrams to its socket          to its socket           to an open one, whose worker hands over

The open slots are the first ones, and so are the living ones: two numbers, and the set of those that are down.
"""

from dataclasses import dataclass, field

from millrace.master.kernel.reuseport import spread
from millrace.master.kernel.sockets import Sockets
from millrace.master.kernel.steering import Steered, set_down, set_eligible

Told = tuple[int, int, frozenset[int]]
"""How many slots are open, how many live, and which of them are down."""


@dataclass(slots=True)
class EligibleSlots:
    """What the kernel was told last."""

    sockets: Sockets
    slots: int
    steered: Steered | None
    """What the steering program reads; None when workers hand over."""
    _told: Told | None = field(default=None)
    """None while only another master knows."""

    @classmethod
    def fresh(cls, sockets: Sockets, slots: int, steered: Steered | None) -> "EligibleSlots":
        """Returns the state of sockets that were just bound: the kernel picks among all of them."""
        return cls(sockets, slots, steered, (slots, slots, frozenset()))

    def change(self, sockets: Sockets) -> None:
        """Goes on with other sockets, of which the kernel is told with the next `tell`."""
        self.sockets = sockets
        self._told = None

    def tell(self, opened: int, living: int, down: frozenset[int] = frozenset()) -> bool:
        """Has the kernel pick among the first `opened` slots, and deliver to the first `living`, without those that are
        `down`; when all open ones are down, there are none. Returns True when that differs from before. Raises OSError.
        """
        if down.issuperset(range(opened)):
            down = frozenset()
        told = opened, living, down
        if self._told == told:
            return False
        is_same_spread = self._told is not None and self._told[::2] == told[::2]
        # After an error half-way, the next call tells everything again.
        self._told = None
        spread_groups = [*self.sockets.http, *self.sockets.admin]
        if self.steered is not None:
            set_eligible(self.steered.eligible, opened, living)
            if self.steered.down is not None:
                set_down(self.steered.down, opened, down)
        else:
            spread_groups += self.sockets.media
        for group in () if is_same_spread else spread_groups:
            spread(group.members, opened, down)
        self._told = told
        return True

    def tell_of_none_down(self) -> None:
        """Has the kernel leave nobody out, before a program takes our place that may not know how."""
        if self._told is not None:
            opened, living, _ = self._told
            self.tell(opened, living)
