"""How sessions ended, in whatever slot: any worker that is asked for one says so, and a successor learns it again from
the others. Owns this memory, its bounds, and how much is told when; must never know HTTP or the bus. Read
`relay/routing.py` next, which answers from it.

    a session ends here ---> told to all others ---> each remembers it for as long as we do
    a worker begins -------> asks ASKED others for the RECENT that they remember
"""

from collections import OrderedDict, deque
from collections.abc import Iterable

from millrace.relay.contract.ids import SessionId
from millrace.relay.contract.tombstone import Tombstone

MAX_TOMBSTONES = 1000
"""Of our own sessions. What others told cannot push these out."""
MAX_HEARD = 4000
"""Of all others' together: about 2 MB."""
TOMBSTONE_SECONDS = 300.0
"""Long enough for an operator to look up why a client's session failed."""
MESSAGES_A_SECOND = 20
"""To each other worker, whatever strangers do. A browser that was replaced asks seconds later."""
ENDS_A_MESSAGE = 100
"""Read in about a millisecond."""
ASKED = 2
"""Others that a worker asks: each has heard what all had to tell, and one of them may be dying."""
RECENT = 1000
"""Told to who asks: 160 KB, read in 6 ms, and twice in a life at most."""


class Tombstones:
    """Tombstones by session."""

    def __init__(self) -> None:
        self._own: OrderedDict[SessionId, Tombstone] = OrderedDict()
        self._heard: OrderedDict[SessionId, Tombstone] = OrderedDict()
        self._untold: deque[Tombstone] = deque(maxlen=MAX_TOMBSTONES)
        """The newest, when more end than may be told."""
        self._messages_left = MESSAGES_A_SECOND

    def add(self, tombstone: Tombstone) -> None:
        """A session of ours is over."""
        self._own[tombstone.session] = tombstone
        if len(self._own) > MAX_TOMBSTONES:
            self._own.popitem(last=False)
        self._untold.append(tombstone)

    def hear(self, ends: Iterable[Tombstone]) -> None:
        """Of other workers. Who knows one already keeps the cause that came first."""
        for tombstone in ends:
            if self.get(tombstone.session) is None:
                self._heard[tombstone.session] = tombstone
        while len(self._heard) > MAX_HEARD:
            self._heard.popitem(last=False)

    def get(self, session: SessionId) -> Tombstone | None:
        """Of a session that ended lately."""
        return self._own.get(session) or self._heard.get(session)

    def recent(self) -> tuple[Tombstone, ...]:
        """For a worker that begins, the oldest first."""
        known = sorted((*self._own.values(), *self._heard.values()), key=lambda tombstone: tombstone.until)
        return tuple(known[-RECENT:])

    def to_tell(self) -> tuple[Tombstone, ...]:
        """What all others are to be told now, in one message."""
        if not self._untold or not self._messages_left:
            return ()
        self._messages_left -= 1
        return tuple(self._untold.popleft() for _ in range(min(len(self._untold), ENDS_A_MESSAGE)))

    def handle_tick(self, now: float) -> None:
        """About once a second: old ones go, in the order in which they came."""
        self._messages_left = MESSAGES_A_SECOND
        for table in (self._own, self._heard):
            while table and next(iter(table.values())).until <= now:
                table.popitem(last=False)
