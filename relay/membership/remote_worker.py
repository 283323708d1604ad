"""The stream of facts of one other worker: brings them into order, and notices when a snapshot is needed. Owns sequence
numbers; must never know what a fact says. Read `relay/membership/directory.py` next, which has the facts.

    gone ---- a new incarnation ----> awaits a snapshot -------- snapshot, and what came after it --------> in order
      ^                                  ^    ^                                                                |
      |  HOLD_SECONDS                    |    +--------------- a gap, or long silence -------------------------+
      +-------- held <-- SlotChanged(None), from any state; gone at once when the slot is empty for good

The facts of a worker that died stand while it is held and while its successor's snapshot is awaited, for HOLD_SECONDS
together: a successor adopts the same sessions, and then its snapshot changes nothing for those who watch them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from millrace.relay.contract.facts import Envelope, Fact, Snapshot
from millrace.relay.contract.ids import Incarnation

MAX_PENDING = 4096
"""Facts queued while a snapshot is awaited. Those past it are dropped, which shows as a gap, and another snapshot is
asked for.
"""
ASK_AGAIN_SECONDS = 1.0
"""The wait before a snapshot is asked for again. One takes milliseconds, so the last one was lost."""
HOLD_SECONDS = 2.0
"""Four times what a respawn takes. When a slot has no worker for longer, its participants are gone."""
SILENCE_SECONDS = 10.0
"""Ten times the interval of Load. A worker that is silent for longer loses its facts; if it lives, they return by a
snapshot after its next Load.
"""


@dataclass(frozen=True, slots=True)
class Heard:
    """What the directory is to do."""

    forget: bool = False
    """Forget all older facts of this slot before the new ones."""
    facts: Sequence[Fact] = ()
    ask: bool = False
    """Ask for a snapshot."""


NOTHING = Heard()


class RemoteWorker:
    """One slot, through all its incarnations."""

    def __init__(self) -> None:
        self.incarnation = Incarnation(0)
        self.alive = False
        self._next_sequence = 1
        self._pending: dict[int, Fact | None] | None = None
        """By sequence, while a snapshot is awaited. None for a fact that this release does not know."""
        self._asked_at = 0.0
        self._heard_at = 0.0
        self._held_until: float | None = None
        """Until when the facts of the incarnation that is over stand; None while there are none."""

    @property
    def is_held(self) -> bool:
        """True while a successor of the dead worker is expected."""
        return self._held_until is not None

    @property
    def is_awaited(self) -> bool:
        """True while the worker's facts are on their way, as far as can be known."""
        return self.is_held or self._pending is not None

    def handle_envelope(self, envelope: Envelope, now: float) -> Heard:
        """Takes one fact, in whatever order the bus delivers."""
        if envelope.incarnation < self.incarnation or (envelope.incarnation == self.incarnation and not self.alive):
            return NOTHING
        self._heard_at = now
        if envelope.incarnation > self.incarnation:
            # Even its first fact does not do alone: it may have adopted sessions that were never announced to us.
            self._begin(envelope.incarnation, now)
            self._await_snapshot({envelope.sequence: envelope.fact}, now)
            return Heard(ask=True)
        if self._pending is not None:
            if len(self._pending) < MAX_PENDING:
                self._pending[envelope.sequence] = envelope.fact
            return NOTHING
        if envelope.sequence < self._next_sequence:
            return NOTHING
        if envelope.sequence == self._next_sequence:
            self._next_sequence += 1
            return NOTHING if envelope.fact is None else Heard(facts=(envelope.fact,))
        self._await_snapshot({envelope.sequence: envelope.fact}, now)
        return Heard(ask=True)

    def handle_snapshot(self, snapshot: Snapshot, now: float) -> Heard:
        """Takes every standing fact as of a sequence, then the queued facts that follow it."""
        if snapshot.incarnation < self.incarnation or (snapshot.incarnation == self.incarnation and not self.alive):
            return NOTHING
        if snapshot.incarnation > self.incarnation:
            self._begin(snapshot.incarnation, now)
            self._pending = {}
        # The answer to an older question tells nothing new, and would undo later facts.
        if snapshot.sequence + 1 < self._next_sequence or (
            self._pending is None and snapshot.sequence + 1 == self._next_sequence
        ):
            return NOTHING
        self._heard_at = now
        self._held_until = None
        self._next_sequence = snapshot.sequence + 1
        facts = list(snapshot.facts)
        pending = {sequence: fact for sequence, fact in (self._pending or {}).items() if sequence > snapshot.sequence}
        self._pending = None
        while self._next_sequence in pending:
            fact = pending.pop(self._next_sequence)
            facts += () if fact is None else (fact,)
            self._next_sequence += 1
        if pending:
            self._await_snapshot(pending, now)
        return Heard(forget=True, facts=facts, ask=bool(pending))

    def handle_slot(self, incarnation: Incarnation | None, now: float) -> Heard:
        """The slot table has another incarnation for this slot, or None when its worker is dead."""
        if incarnation is None:
            if self.alive or self.incarnation == 0:
                self._held_until = now + HOLD_SECONDS
            self.alive = False
            self._pending = None
            return NOTHING
        if incarnation < self.incarnation or (incarnation == self.incarnation and self.alive):
            return NOTHING
        self._begin(incarnation, now)
        self._await_snapshot({}, now)
        return Heard(ask=True)

    def handle_empty(self) -> Heard:
        """The worker has retired, and left no session to be adopted."""
        self.alive, self._pending, self._held_until = False, None, None
        return Heard(forget=True)

    def handle_tick(self, now: float) -> Heard:
        """Ends the hold, asks for the snapshot again, and forgets a worker that is silent though its slot is said to
        live.
        """
        forget = ask = False
        if self._held_until is not None and now >= self._held_until:
            self._held_until, forget = None, True
        if self.alive and self._pending is None and now - self._heard_at >= SILENCE_SECONDS:
            self._await_snapshot({}, now)
            forget = ask = True
        elif self.alive and self._pending is not None and now - self._asked_at >= ASK_AGAIN_SECONDS:
            self._asked_at, ask = now, True
        return Heard(forget=forget, ask=ask)

    def _begin(self, incarnation: Incarnation, now: float) -> None:
        # The death may not have been seen by itself. If this successor dies too, the hold begins anew for the next one.
        self._held_until = now + HOLD_SECONDS
        self._heard_at = now
        self.incarnation = incarnation
        self.alive = True
        self._next_sequence = 1
        self._pending = None

    def _await_snapshot(self, pending: dict[int, Fact | None], now: float) -> None:
        self._pending = pending
        self._asked_at = now
