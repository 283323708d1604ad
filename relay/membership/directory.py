"""Who is in which room and what is published, on all workers: the union of every worker's facts. Owns the tables; must
never know sessions, HTTP or the engine. Read `relay/membership/room.py` next, which chooses whom a viewer watches.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from millrace.relay.contract.facts import (
    Envelope,
    Fact,
    Load,
    ParticipantGone,
    ParticipantHere,
    PublicationGone,
    PublicationHere,
    Snapshot,
)
from millrace.relay.contract.ids import Incarnation, PublicationId, RoomName, SessionId, Slot
from millrace.relay.membership.remote_worker import Heard, RemoteWorker


@dataclass(slots=True)
class Room:
    """One room, as the facts of all workers describe it."""

    publishers: dict[SessionId, tuple[Slot, ParticipantHere]] = field(default_factory=dict)
    viewers: dict[SessionId, tuple[Slot, ParticipantHere]] = field(default_factory=dict)
    """Apart from publishers, since there are many, and a viewer that joins need not pass over them."""
    publications: dict[PublicationId, PublicationHere] = field(default_factory=dict)

    def is_empty(self) -> bool:
        """True when the room has neither participants nor publications."""
        return not (self.publishers or self.viewers or self.publications)


@dataclass(slots=True)
class _Standing:
    """One worker's facts that have not been withdrawn."""

    participants: dict[SessionId, ParticipantHere] = field(default_factory=dict)
    publications: dict[PublicationId, PublicationHere] = field(default_factory=dict)
    load: Load | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """What a message changed in the directory."""

    rooms: frozenset[RoomName] = frozenset()
    """Rooms whose publishers or publications may have changed; a change of viewers does not count."""
    publishers: tuple[ParticipantHere, ...] = ()
    """Publishers that the slot did not have before."""
    gone: frozenset[SessionId | PublicationId] = frozenset()
    """Sessions and publications that the slot withdrew."""
    ask: bool = False
    """True when the slot is to be asked for a snapshot."""


class Directory:
    """The facts of all slots. `slot` is our own, whose facts need no bus."""

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._remotes: dict[Slot, RemoteWorker] = {}
        self._standing: dict[Slot, _Standing] = {slot: _Standing()}
        self._rooms: dict[RoomName, Room] = {}
        self._slot_by_session: dict[SessionId, Slot] = {}
        """The slot that announced a session last: while the session moves, two slots have it."""

    # --- what comes in

    def apply_own(self, fact: Fact) -> Change:
        """Applies a fact of our own."""
        return self._apply(self._slot, Heard(facts=(fact,)))

    def handle_envelope(self, envelope: Envelope, now: float) -> Change:
        """Applies what another worker announced."""
        if envelope.slot == self._slot:
            return Change()
        return self._apply(envelope.slot, self._remote(envelope.slot).handle_envelope(envelope, now))

    def handle_snapshot(self, snapshot: Snapshot, now: float) -> Change:
        """Replaces the facts of another worker by its snapshot."""
        if snapshot.slot == self._slot:
            return Change()
        return self._apply(snapshot.slot, self._remote(snapshot.slot).handle_snapshot(snapshot, now))

    def handle_slot(self, slot: Slot, incarnation: Incarnation | None, now: float) -> Change:
        """The slot table has another incarnation for this slot, or None when its worker is dead."""
        if slot == self._slot:
            return Change()
        return self._apply(slot, self._remote(slot).handle_slot(incarnation, now))

    def handle_empty(self, slot: Slot) -> Change:
        """The slot's worker has retired, and has no successor."""
        return self._apply(slot, self._remote(slot).handle_empty())

    def handle_tick(self, now: float) -> Iterator[tuple[Slot, Change]]:
        """Yields what time alone changes, slot by slot."""
        for slot, remote in self._remotes.items():
            yield slot, self._apply(slot, remote.handle_tick(now))

    # --- what is asked

    def is_alive(self, slot: Slot) -> bool:
        """True when requests can be passed on to the slot: it has a worker, or expects a successor, which answers
        requests that waited for it.
        """
        return slot == self._slot or (
            slot in self._remotes and (self._remotes[slot].alive or self._remotes[slot].is_held)
        )

    def others(self) -> tuple[Slot, ...]:
        """The slots of all other workers, living or about to be replaced: a successor gets messages that were sent
        before.
        """
        return tuple(slot for slot in self._remotes if self.is_alive(slot))

    def neighbours(self) -> list[Slot]:
        """The other slots that have a worker, those after ours first, so that not all workers ask the same one."""
        return sorted(
            (slot for slot, remote in self._remotes.items() if remote.alive), key=lambda slot: (slot < self._slot, slot)
        )

    def living(self) -> list[Slot]:
        """The other slots that have a worker whose Load is known."""
        loads = self.loads()
        return [slot for slot, remote in self._remotes.items() if remote.alive and slot in loads]

    def sessions_in(self, slot: Slot) -> int:
        """How many sessions a slot has, as far as its facts tell."""
        return sum(1 for holder in self._slot_by_session.values() if holder == slot)

    def holder(self, session: SessionId) -> Slot | None:
        """The slot that a session is in, wherever it was opened; None when no worker has it."""
        return self._slot_by_session.get(session)

    def waits_for_others(self) -> bool:
        """True while the facts of a worker that lives, or is about to be replaced, are on their way."""
        return any(remote.is_awaited for remote in self._remotes.values())

    def room(self, name: RoomName) -> Room | None:
        """The room of this name; None when it is empty."""
        return self._rooms.get(name)

    def rooms(self) -> Iterable[tuple[RoomName, Room]]:
        """All rooms that are not empty, with their names."""
        return self._rooms.items()

    def loads(self) -> dict[Slot, Load]:
        """The last Load of each living worker, our own included."""
        return {slot: standing.load for slot, standing in self._standing.items() if standing.load is not None}

    def own_facts(self) -> tuple[Fact, ...]:
        """Our own standing facts, participants before what they publish."""
        own = self._standing[self._slot]
        loads = () if own.load is None else (own.load,)
        return (*own.participants.values(), *own.publications.values(), *loads)

    def view(self) -> frozenset[Fact]:
        """Every standing fact but the loads: what all directories agree on once the bus is quiet."""
        facts: set[Fact] = set()
        for standing in self._standing.values():
            facts.update(standing.participants.values())
            facts.update(standing.publications.values())
        return frozenset(facts)

    # --- the tables

    def _remote(self, slot: Slot) -> RemoteWorker:
        return self._remotes.setdefault(slot, RemoteWorker())

    def _apply(self, slot: Slot, heard: Heard) -> Change:
        rooms: set[RoomName] = set()
        before: frozenset[SessionId] = frozenset()
        if heard.forget:
            before = frozenset(self._standing[slot].participants) if slot in self._standing else frozenset()
            rooms.update(self._forget(slot))
        publishers = []
        gone_now: set[SessionId | PublicationId] = set()
        standing = self._standing.setdefault(slot, _Standing())
        for fact in heard.facts:
            match fact:
                case ParticipantHere():
                    self._take_participant(slot, standing, fact, moves=not heard.forget)
                    if fact.publishes:
                        rooms.add(fact.room)
                        if fact.session not in before:
                            publishers.append(fact)
                case ParticipantGone():
                    gone = self._drop_participant(standing, fact.session)
                    gone_now.add(fact.session)
                    if gone is not None and gone.publishes:
                        rooms.add(gone.room)
                case PublicationHere():
                    standing.publications[fact.publication] = fact
                    self._rooms.setdefault(fact.room, Room()).publications[fact.publication] = fact
                    rooms.add(fact.room)
                case PublicationGone():
                    gone_now.add(fact.publication)
                    if self._drop_publication(standing, fact.publication):
                        rooms.add(fact.room)
                case Load():
                    standing.load = fact
        return Change(frozenset(rooms), tuple(publishers), frozenset(gone_now), heard.ask)

    def _take_participant(self, slot: Slot, standing: _Standing, fact: ParticipantHere, moves: bool) -> None:
        standing.participants[fact.session] = fact
        # A snapshot repeats old facts, and its slot may name a session that has moved to another slot meanwhile.
        if moves or self._slot_by_session.get(fact.session, slot) == slot:
            self._hold(slot, fact)

    def _hold(self, slot: Slot, fact: ParticipantHere) -> None:
        self._slot_by_session[fact.session] = slot
        room = self._rooms.setdefault(fact.room, Room())
        (room.publishers if fact.publishes else room.viewers)[fact.session] = (slot, fact)

    def _drop_participant(self, standing: _Standing, session: SessionId) -> ParticipantHere | None:
        fact = standing.participants.pop(session, None)
        if fact is None:
            return None
        others = [slot for slot, other in self._standing.items() if session in other.participants]
        if others:
            if self._slot_by_session[session] not in others:
                self._hold(others[0], self._standing[others[0]].participants[session])
            return fact
        del self._slot_by_session[session]
        room = self._rooms[fact.room]
        (room.publishers if fact.publishes else room.viewers).pop(session, None)
        self._sweep(fact.room)
        return fact

    def _drop_publication(self, standing: _Standing, publication: PublicationId) -> bool:
        fact = standing.publications.pop(publication, None)
        if fact is None:
            return False
        others = [
            other.publications[publication] for other in self._standing.values() if publication in other.publications
        ]
        if others:
            # It has moved. What the slot that it left said last may be older.
            self._rooms[fact.room].publications[publication] = others[0]
        else:
            self._rooms[fact.room].publications.pop(publication, None)
            self._sweep(fact.room)
        return True

    def _forget(self, slot: Slot) -> set[RoomName]:
        standing = self._standing.pop(slot, None)
        if standing is None:
            return set()
        rooms = {fact.room for fact in standing.participants.values() if fact.publishes}
        rooms.update(fact.room for fact in standing.publications.values())
        for session in list(standing.participants):
            self._drop_participant(standing, session)
        for publication in list(standing.publications):
            self._drop_publication(standing, publication)
        return rooms

    def _sweep(self, room: RoomName) -> None:
        if self._rooms[room].is_empty():
            del self._rooms[room]
