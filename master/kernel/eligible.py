"""Which slots the kernel may pick: an open slot gets new connections and new flows, a living one the datagrams of its
own sessions. It must never decide which slots live. Read next: `master/kernel/steering.py` for media that the kernel
steers, `master/kernel/reuseport.py` for all else.

                            worker serves (open)   worker leaves (living)  no worker
    new connections, flows  yes                    no                      no
    its sessions' datagrams to its socket          to its socket           to an open one, whose worker hands over

The open slots are always the first ones, and so are the living ones: two numbers are enough.
"""

from dataclasses import dataclass, field

from millrace.master.kernel.reuseport import spread
from millrace.master.kernel.sockets import Sockets
from millrace.master.kernel.steering import set_eligible


@dataclass(slots=True)
class EligibleSlots:
    """What the kernel was told last."""

    sockets: Sockets
    slots: int
    map: int | None
    """The steering program's map; None when workers hand over."""
    _told: tuple[int, int] | None = field(default=None)
    """How many are open and how many live; None while only another master knows."""

    @classmethod
    def fresh(cls, sockets: Sockets, slots: int, eligible: int | None) -> "EligibleSlots":
        """Returns the state of sockets that were just bound: the kernel picks among all of them."""
        return cls(sockets, slots, eligible, (slots, slots))

    def tell(self, opened: int, living: int) -> bool:
        """Has the kernel pick among the first `opened` slots, and deliver to the first `living`. Returns True when that
        differs from before. Raises OSError.
        """
        if self._told == (opened, living):
            return False
        is_same_spread = self._told is not None and self._told[0] == opened
        # After an error half-way, the next call tells everything again.
        self._told = None
        spread_groups = [*self.sockets.http, *self.sockets.admin]
        if self.map is not None:
            set_eligible(self.map, opened, living)
        else:
            spread_groups += self.sockets.media
        for group in () if is_same_spread else spread_groups:
            spread(group.members, opened)
        self._told = (opened, living)
        return True
