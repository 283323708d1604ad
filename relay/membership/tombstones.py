"""How sessions ended, in whatever slot: any worker answers for any of them, and a successor learns it again from the
others. Owns this memory, its bounds, and how much is told when; must never know HTTP or the bus. Read
`relay/routing.py` next, which answers from it.

    a session ends here ---> told to all others ---> each remembers it for as long as we do
    a worker begins -------> asks ASKED others for the RECENT that they remember
"""

from collections import OrderedDict, deque
from collections.abc import Iterable

from millrace.relay.contract.ids import SessionId
from millrace.relay.contract.tombstone import Tombstone

MAX_TOMBSTONES = 1000
"""Tombstones of our own sessions; the oldest is dropped past it. What others tell cannot push these out."""
MAX_HEARD = 4000
"""Tombstones of all other workers together, about 2 MB; the oldest is dropped past it."""
TOMBSTONE_SECONDS = 300.0
"""How long a tombstone is kept: an operator has time to look up why a client's session failed."""
MESSAGES_A_SECOND = 20
"""To each other worker; tombstones past it wait for the next second. So strangers cannot make the bus busy, and a
browser whose session was replaced asks only seconds later.
"""
ENDS_A_MESSAGE = 100
"""Read in about a millisecond."""
ASKED = 2
"""How many others a worker asks when it starts: each has heard what all had to tell, and one of them may be dying."""
RECENT = 1000
"""The newest tombstones, told to a worker that asks: 160 KB, read in 6 ms, and twice in a life at most."""


class Tombstones:
    """Tombstones by session."""

    def __init__(self) -> None:
        self._own: OrderedDict[SessionId, Tombstone] = OrderedDict()
        self._heard: OrderedDict[SessionId, Tombstone] = OrderedDict()
        self._untold: deque[Tombstone] = deque(maxlen=MAX_TOMBSTONES)
        """Own tombstones that were not told yet; the oldest is dropped past the bound."""
        self._messages_left = MESSAGES_A_SECOND

    def add(self, tombstone: Tombstone) -> None:
        """Adds the tombstone of a session of ours."""
        self._own[tombstone.session] = tombstone
        if len(self._own) > MAX_TOMBSTONES:
            self._own.popitem(last=False)
        self._untold.append(tombstone)

    def hear(self, ends: Iterable[Tombstone]) -> None:
        """Adds other workers' tombstones. Of a session that is known already, the first cause stays."""
        for tombstone in ends:
            if self.get(tombstone.session) is None:
                self._heard[tombstone.session] = tombstone
        while len(self._heard) > MAX_HEARD:
            self._heard.popitem(last=False)

    def get(self, session: SessionId) -> Tombstone | None:
        """The tombstone of this session; None when there is none."""
        return self._own.get(session) or self._heard.get(session)

    def recent(self) -> tuple[Tombstone, ...]:
        """The RECENT newest tombstones, the oldest first, for a worker that starts."""
        known = sorted((*self._own.values(), *self._heard.values()), key=lambda tombstone: tombstone.until)
        return tuple(known[-RECENT:])

    def to_tell(self) -> tuple[Tombstone, ...]:
        """Takes what all others are to be told now, in one message; empty when there is nothing, or enough was told."""
        if not self._untold or not self._messages_left:
            return ()
        self._messages_left -= 1
        return tuple(self._untold.popleft() for _ in range(min(len(self._untold), ENDS_A_MESSAGE)))

    def handle_tick(self, now: float) -> None:
        """About once a second: drops tombstones whose time is over, in the order in which they came."""
        self._messages_left = MESSAGES_A_SECOND
        for table in (self._own, self._heard):
            while table and next(iter(table.values())).until <= now:
                table.popitem(last=False)
