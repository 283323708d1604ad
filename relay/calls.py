"""Worker -> one worker, over ZeroMQ with a reply: a snapshot wanted, a request passed on, a room to close. Owns the
shapes; must never know how they travel. Read `relay/codec.py` for their bytes and `workers/bus.py` for the sockets.
"""

from dataclasses import dataclass

from relay.effects import Deleted, Patched, Reply, RoomClosedElsewhere, SessionAsked
from relay.facts import Snapshot


@dataclass(frozen=True, slots=True)
class SnapshotAsked:
    """Answered with `Control.snapshot()`."""


PassedOn = Patched | Deleted | SessionAsked
"""An HTTP request that another worker took: the one who answers handles it as an input, under a number of its own."""

Call = SnapshotAsked | RoomClosedElsewhere | PassedOn
Answer = Snapshot | Reply
"""RoomClosedElsewhere has no answer."""
