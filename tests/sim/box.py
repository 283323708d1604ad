"""A whole box in virtual time: many Controls, a bus that drops, delays, reorders and duplicates, workers that die and
return. Everything that happens follows from one seed; nothing here knows how Control works inside.
"""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from millrace.relay.access.grants import make_token
from millrace.relay.config.model import ArenaConfig, AuthConfig, Config
from millrace.relay.contract import codec
from millrace.relay.contract.boot import CandidateAddress
from millrace.relay.contract.commands import Command, MoveTransport
from millrace.relay.contract.effects import (
    Announce,
    AskEnds,
    AskSnapshot,
    CloseRoomEverywhere,
    DeleteElsewhere,
    PassOn,
    Reply,
    Submit,
    TellEnds,
)
from millrace.relay.contract.events import Cause, MoveDone, Outcome, TransportClosed
from millrace.relay.contract.facts import Envelope, Snapshot
from millrace.relay.contract.ids import Incarnation, RequestId, Slot
from millrace.relay.contract.inputs import (
    Deleted,
    EndsHeard,
    EngineSaid,
    FactHeard,
    Input,
    MoveAsked,
    Offered,
    Patched,
    RoomClosedElsewhere,
    SessionAsked,
    SlotChanged,
    SnapshotHeard,
    Ticked,
)
from millrace.relay.contract.protocol import Protocol
from millrace.relay.contract.rpc import PassedOn
from millrace.relay.control import Control, MediaEndpoint
from millrace.relay.load.counters import Contract
from tests.sim.fake_engine import FakeEngine
from tests.unit.control_kit import FINGERPRINT, NOW, moment, offer, session_of

MAX_HOPS = 2
SECRET = "s" * 32
CONFIG = Config(auth=AuthConfig(keys={"key": SECRET}), arena=ArenaConfig(logs_per_slot=64))


@dataclass
class Weather:
    """What the bus does to messages."""

    drop: float = 0.0
    duplicate: float = 0.0
    delay: float = 0.002
    """Longest, seconds; each message draws its own, so they overtake one another."""


@dataclass
class Life:
    """One incarnation of one worker."""

    slot: Slot
    incarnation: Incarnation
    control: Control
    engine: FakeEngine
    language: "Language"
    replies: dict[RequestId, Reply] = field(default_factory=dict)
    passed_on: dict[RequestId, PassedOn] = field(default_factory=dict)


class Language:
    """How a worker says things to others: as this release does. Another release's is derived from it."""

    def facts(self, envelope: Envelope) -> list[bytes]:
        """All messages for one fact."""
        return [codec.pack_envelope(envelope)]

    def snapshot(self, snapshot: Snapshot) -> bytes:
        """The answer to whoever asks for one."""
        return codec.pack_answer(snapshot)


class Box:
    """`slots` workers that live from the start."""

    def __init__(self, seed: int, slots: int = 4, weather: Weather | None = None, config: Config = CONFIG) -> None:
        self.chance = random.Random(seed)
        self.weather = weather or Weather()
        self.config = config
        self.now = NOW
        self.clock_set_by = 0.0
        """By how much somebody has set the Unix clock."""
        self.commands: list[Command] = []
        """All that the engines were told."""
        self.lives: dict[Slot, Life] = {}
        self.arena: dict[Slot, FakeEngine] = {}
        """What dead workers have left."""
        self.incarnations = {Slot(slot): 0 for slot in range(slots)}
        self.parcels: dict[int, FakeEngine] = {}
        """Transports between two engines."""
        self.waiting: dict[RequestId, tuple[Life, RequestId]] = {}
        """Who passed a request on, and under which number it has it."""
        self.hops: dict[RequestId, int] = {}
        self.retried: set[RequestId] = set()
        self.takes = 0.8
        """How often who is given a session takes it."""
        self.languages: dict[Slot, type[Language]] = {}
        """Of workers of another release."""
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        for slot in self.incarnations:
            self.spawn(slot)

    # --- time

    def after(self, seconds: float, step: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._queue, (self.now + seconds, self._count, step))

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self._queue and self._queue[0][0] <= until:
            self.now, _, step = heapq.heappop(self._queue)
            step()
        self.now = until

    # --- processes

    def spawn(self, slot: Slot, adopts: bool = False, losing: float = 0.0) -> None:
        """A new life of the slot, with its predecessor's sessions but for a share that had not connected."""
        self.incarnations[slot] += 1
        incarnation = Incarnation(self.incarnations[slot])
        endpoint = MediaEndpoint(
            FINGERPRINT, [CandidateAddress("127.0.0.1", 7882, "127.0.0.1")], lambda log: self._is_foreign(slot, log)
        )
        control = Control(self.config, slot, incarnation, endpoint, self.chance.randbytes)
        left = self.arena.pop(slot, FakeEngine(slot, CONFIG.arena.logs_per_slot))
        lost = [one for one in sorted(left.transports) if not adopts or self.chance.random() < losing]
        engine, events = left.successor(lost)
        life = Life(slot, incarnation, control, engine, self.languages.get(slot, Language)())
        self.lives[slot] = life
        for event in codec.unpack_events(codec.pack_events(events)):
            self.give(life, EngineSaid(event))
        for other in self.lives.values():
            if other is not life:
                self._tell_slot(life, other.slot)
                self._tell_slot(other, slot)
        self.after(self.chance.uniform(0.1, 1), lambda: self._tick(life))

    def kill(self, slot: Slot) -> None:
        self.arena[slot] = self.lives.pop(slot).engine
        for other in self.lives.values():
            self._tell_slot(other, slot)

    def retire(self, slot: Slot) -> None:
        """Its worker has given everything away, and is not replaced."""
        assert self.lives[slot].control.is_done
        del self.lives[slot]
        for other in self.lives.values():
            self._tell_slot(other, slot)

    def _tell_slot(self, life: Life, slot: Slot) -> None:
        """A worker looks at the master's table now and then, and sees what stands there at that moment."""

        def look() -> None:
            seen = self.lives.get(slot)
            is_empty = seen is None and slot not in self.arena
            self.give(life, SlotChanged(slot, None if seen is None else seen.incarnation, is_empty))

        self.after(self.chance.uniform(0, 0.1), look)

    def _tick(self, life: Life) -> None:
        if self._lives(life):
            self.give(life, Ticked())
            self.after(1.0, lambda: self._tick(life))

    def _lives(self, life: Life) -> bool:
        return self.lives.get(life.slot) is life

    # --- inputs and effects

    def give(self, life: Life, said: Input) -> None:
        if not self._lives(life):
            return
        for effect in life.control.handle(said, moment(self.now, self.clock_set_by)):
            match effect:
                case Submit(commands):
                    self.commands += commands
                    for command in codec.unpack_commands(codec.pack_commands(commands)):
                        life.engine.submit([command])
                        self._look_at_gifts(life)
                case DeleteElsewhere(slot, deleted):
                    self.after(0.001, lambda slot=slot, deleted=deleted: self._delete_elsewhere(slot, deleted))
                case Announce():
                    for packed in life.language.facts(effect.envelope):
                        for other in self.lives.values():
                            if other is not life:
                                self._send(other, lambda o=other, p=packed: self._hear_fact(o, p))
                case AskSnapshot(slot):
                    self._send(life, lambda slot=slot: self._answer_snapshot(life, slot))
                case CloseRoomEverywhere(room):
                    # A call to each worker, which is not lost while that worker lives.
                    for other in self.lives.values():
                        if other is not life:
                            self.after(0.001, lambda o=other, room=room: self.give(o, RoomClosedElsewhere(room)))
                case TellEnds(slots, ends):
                    # Calls, likewise.
                    packed = codec.pack_rpc(ends)
                    for slot in slots:
                        self.after(0.001, lambda slot=slot, packed=packed: self._hear_ends(slot, packed))
                case AskEnds(slot):
                    self.after(0.001, lambda slot=slot: self._answer_ends(life, slot))
                case PassOn(request, slot):
                    self._pass_on(life, request, slot)
                case Reply():
                    self._reply(life, effect)
                case _:
                    pass

    def _send(self, to: Life, step: Callable[[], None]) -> None:
        if self.chance.random() < self.weather.drop:
            return
        for _ in range(2 if self.chance.random() < self.weather.duplicate else 1):
            self.after(self.chance.uniform(0, self.weather.delay), step)

    def _answer_snapshot(self, asker: Life, slot: Slot) -> None:
        answering = self.lives.get(slot)
        if answering is not None:
            packed = answering.language.snapshot(answering.control.snapshot())
            self._send(asker, lambda: self._hear_snapshot(asker, packed))

    def _hear_fact(self, life: Life, packed: bytes) -> None:
        skip = self._skip(life, Contract.FACTS)
        self.give(life, FactHeard(codec.unpack_envelope(packed, skip)))

    def _hear_snapshot(self, life: Life, packed: bytes) -> None:
        snapshot = codec.unpack_answer(packed, self._skip(life, Contract.ANSWERS))
        assert isinstance(snapshot, Snapshot)
        self.give(life, SnapshotHeard(snapshot))

    @staticmethod
    def _skip(life: Life, contract: Contract) -> codec.Skip:
        def skip(error: codec.Unreadable) -> None:
            assert isinstance(error, codec.UnknownKind), error
            life.control.counters.unknown(contract)

        return skip

    def _hear_ends(self, slot: Slot, packed: bytes) -> None:
        ends = codec.unpack_rpc(packed)
        assert isinstance(ends, EndsHeard)
        if slot in self.lives:
            self.give(self.lives[slot], ends)

    def _answer_ends(self, asker: Life, slot: Slot) -> None:
        if slot in self.lives:
            answer = codec.unpack_answer(codec.pack_answer(self.lives[slot].control.recent_tombstones()))
            assert isinstance(answer, EndsHeard)
            self.after(0.001, lambda: self.give(asker, answer))

    def _reply(self, life: Life, reply: Reply) -> None:
        asked = life.passed_on.get(reply.request)
        if reply.status in (404, 508) and self.hops.get(reply.request) and asked and reply.request not in self.retried:
            # As a worker does for another: the session may be about to arrive.
            self.retried.add(reply.request)
            self.after(0.05, lambda: self.give(life, asked))
            return
        life.replies[reply.request] = reply
        if reply.request in self.waiting:
            asker, request = self.waiting.pop(reply.request)
            self._reply(asker, replace(reply, request=request))

    def _is_foreign(self, slot: Slot, log: int) -> bool:
        others = [life.engine for other, life in self.lives.items() if other != slot]
        others += [engine for other, engine in self.arena.items() if other != slot]
        return any(log in engine.logs() for engine in [*others, *self.parcels.values()])

    def _look_at_gifts(self, life: Life) -> None:
        """The engines' part of a move takes as long as it takes, and any of the two may be dead at its end."""
        while life.engine.given:
            give = life.engine.given.pop()
            parcel = life.engine.take_out(give.transport)
            self.parcels[give.transport] = parcel
            self.after(self.chance.uniform(0, 0.15), lambda give=give: self._settle_gift(life, give))

    def _settle_gift(self, life: Life, give: MoveTransport) -> None:
        parcel = self.parcels.pop(give.transport)
        taker = self.lives.get(give.slot)
        if taker is not None and self.chance.random() < self.takes:
            taker.engine.put_in(parcel)
            outcome = Outcome.MOVED
            adopted = taker.engine.adopted(give.transport)
            self.after(self.chance.uniform(0, 0.01), lambda: self.give(taker, EngineSaid(adopted)))
        elif self._lives(life):
            life.engine.put_in(parcel)
            outcome = self.chance.choice([one for one in Outcome if one is not Outcome.MOVED])
        else:
            # The giver's successor, or what is left of it, has it again.
            adopter = self.lives.get(life.slot)
            if adopter is None:
                self.arena[life.slot].put_in(parcel)
            else:
                adopter.engine.put_in(parcel)
                self.give(adopter, EngineSaid(adopter.engine.adopted(give.transport)))
            return
        self.after(
            self.chance.uniform(0, 0.01),
            lambda: self.give(life, EngineSaid(MoveDone(give.transport, give.slot, outcome))),
        )

    def _delete_elsewhere(self, slot: Slot, deleted: Deleted) -> None:
        if slot in self.lives:
            number = self.number()
            self.hops[number] = 1
            self.lives[slot].passed_on[number] = replace(deleted, request=number)
            self.give(self.lives[slot], self.lives[slot].passed_on[number])

    def _pass_on(self, life: Life, request: RequestId, slot: Slot) -> None:
        owner = self.lives.get(slot)
        hops = self.hops.get(request, 0)
        if hops == MAX_HOPS:
            self._reply(life, Reply(request, 508))
        elif owner is not None:
            number = self.number()
            self.hops[number] = hops + 1
            owner.passed_on[number] = replace(life.passed_on[request], request=number)
            self.waiting[number] = (life, request)
            self.give(owner, owner.passed_on[number])

    # --- clients

    def number(self) -> RequestId:
        self._count += 1
        return RequestId(self._count)

    def offer(
        self, life: Life, protocol: Protocol, room: str, who: str, watches: str | None = None, *, codecs: str = "vp8"
    ) -> str:
        """The id of the new session."""
        reply = self.offer_at(life, protocol, room, who, watches, codecs=codecs)
        assert reply.status == 201
        return session_of(reply)

    def offer_at(
        self, life: Life, protocol: Protocol, room: str, who: str, watches: str | None = None, *, codecs: str = "vp8"
    ) -> Reply:
        """What a client is told that comes to this worker."""
        token = make_token("key", SECRET, identity=who, room=room, expires_at=NOW + 1e6)
        direction = "sendonly" if protocol is Protocol.WHIP else "recvonly"
        request = self.number()
        asked = Offered(request, protocol, room, token, offer(direction=direction, codecs=codecs), watches)
        life.passed_on[request] = asked
        self.give(life, asked)
        return life.replies.pop(request)

    def delete(self, by: Life, session: str) -> int:
        """On any worker, as the kernel spreads requests; the status."""
        request = self.number()
        asked = Deleted(request, session, None, by_admin=True)
        by.passed_on[request] = asked
        self.give(by, asked)
        reply = by.replies.pop(request, None)
        return 504 if reply is None else reply.status

    def ask(self, by: Life, session: str) -> Reply | None:
        """What the administration is told of a session; None when it does not answer at once."""
        return self._touch(by, SessionAsked(self.number(), session))

    def patch(self, by: Life, session: str) -> Reply | None:
        """A check of a client whether its session is there."""
        return self._touch(by, Patched(self.number(), session, None, None, "a=ice-ufrag:abcd\r\n"))

    def _touch(self, by: Life, asked: SessionAsked | Patched) -> Reply | None:
        by.passed_on[asked.request] = asked
        self.give(by, asked)
        return by.replies.pop(asked.request, None)

    def move(self, by: Life, session: str, slot: Slot) -> RequestId:
        """Asked of any worker; the number under which its reply may be found later, if it comes at once."""
        request = self.number()
        asked = MoveAsked(request, session, slot)
        by.passed_on[request] = asked
        self.give(by, asked)
        return request

    def holder(self, session: str) -> Life | None:
        """The worker that has a session."""
        having = [life for life in self.lives.values() if session in {one.id for one in life.control.sessions.all()}]
        assert len(having) < 2
        return having[0] if having else None

    def lose_client(self, life: Life) -> None:
        """Some client's consent runs out."""
        if life.engine.transports:
            transport = self.chance.choice(sorted(life.engine.transports))
            life.engine.close(transport)
            self.give(life, EngineSaid(TransportClosed(transport, Cause.CONSENT_LOST)))  # type: ignore[arg-type]
