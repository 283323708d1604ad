"""Which slots the kernel gives to: new connections and new flows go to the open ones only, datagrams that name a slot
to any in which somebody lives. It must never decide who lives. Read next: `master/kernel/steering.py`,
`master/kernel/reuseport.py`.

                            a worker serves        it leaves              nobody
    new connections, flows  yes                    no                     no
    its sessions' datagrams to its socket          to its socket          to an open one, whose worker hands over

Slots are open, and live, from the first on: two numbers say it all.
"""

from dataclasses import dataclass, field

from millrace.master.kernel.reuseport import spread
from millrace.master.kernel.sockets import Sockets
from millrace.master.kernel.steering import place


@dataclass(slots=True)
class Places:
    """What the kernel was told last."""

    sockets: Sockets
    slots: int
    map: int | None
    """Of the steering program; None when workers hand over."""
    _told: tuple[int, int] | None = field(default=None)
    """None while it is whatever another master has told."""

    @classmethod
    def fresh(cls, sockets: Sockets, slots: int, places: int | None) -> "Places":
        """Media go to all of them, until something else is told."""
        return cls(sockets, slots, places, (slots, slots))

    def tell(self, opened: int, living: int) -> bool:
        """Makes it so; True when it was not. Raises OSError."""
        if self._told == (opened, living):
            return False
        is_same_spread = self._told is not None and self._told[0] == opened
        # What fails half-way is told as a whole next time.
        self._told = None
        spread_groups = [*self.sockets.http, *self.sockets.admin]
        if self.map is not None:
            place(self.map, opened, living)
        else:
            spread_groups += self.sockets.media
        for group in () if is_same_spread else spread_groups:
            spread(group.members, opened)
        self._told = (opened, living)
        return True
