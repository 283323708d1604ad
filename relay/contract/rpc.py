"""Worker -> one worker, over ZeroMQ with a reply: a snapshot wanted, a request passed on, a room to close, tombstones
told. Owns the shapes; must never know how they travel. Read `relay/contract/codec.py` for their bytes and
`workers/bus.py` for the sockets.
"""

from dataclasses import dataclass

from millrace.relay.contract.effects import Reply
from millrace.relay.contract.facts import Snapshot
from millrace.relay.contract.inputs import (
    Deleted,
    EndsHeard,
    MoveAsked,
    Offered,
    Patched,
    RoomClosedElsewhere,
    SessionAsked,
)


@dataclass(frozen=True, slots=True)
class SnapshotAsked:
    """Answered with `Control.snapshot()`."""


@dataclass(frozen=True, slots=True)
class EndsAsked:
    """Answered with `Control.recent_tombstones()`; older programs do not answer."""


PassedOn = Offered | Patched | Deleted | SessionAsked | MoveAsked
"""An HTTP request that another worker accepted. The worker that answers handles it as an input with a number of its
own.
"""


@dataclass(frozen=True, slots=True)
class PassedOnAgain:
    """A request that was passed on to a worker whose session had just moved. Nobody passes it on a third time."""

    request: PassedOn


@dataclass(frozen=True, slots=True)
class CallUnknown:
    """The answer to a call that its receiver cannot read, so that nobody waits for another one."""


Rpc = SnapshotAsked | RoomClosedElsewhere | EndsAsked | EndsHeard | PassedOn | PassedOnAgain
Answer = Snapshot | EndsHeard | Reply | CallUnknown
"""RoomClosedElsewhere and EndsHeard have no answer."""
