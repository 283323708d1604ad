"""The only import of zmq: facts go to all workers, and a call to one worker comes back with its answer. It must never
know what a message means; one that it cannot read is counted and dropped. Read next: `relay/contract/rpc.py`, which has
the calls.

    worker-{slot}.pub   PUB bound by the slot, one SUB of each worker connected to all others
    worker-{slot}.rpc   ROUTER bound by the slot, one DEALER of each worker connected; frames: number, call or answer

Only slots with a worker are connected to, as ZeroMQ tries a hundred times a second to reach one without.

Nothing here ever waits for another worker. Queues are bounded, and a full one loses the message. Lost messages are
noticed and asked for again: a fact by the gap in its sequence, a call by its missing answer. Calls that a worker has
not answered when it dies are sent again to its successor.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import zmq  # noqa: TID251

from millrace.relay.contract import codec
from millrace.relay.contract.effects import Reply
from millrace.relay.contract.facts import Envelope, Snapshot
from millrace.relay.contract.ids import Slot
from millrace.relay.contract.inputs import EndsHeard, RoomClosedElsewhere
from millrace.relay.contract.rpc import Answer, CallUnknown, EndsAsked, PassedOn, PassedOnAgain, Rpc, SnapshotAsked
from millrace.relay.load.counters import Contract

log = logging.getLogger("millrace.bus")

FACTS_QUEUED = 65_536
"""For each other worker, then facts are lost: one that is held up for a second misses nothing, and one that hangs costs
some 20 MB until it dies.
"""
CALLS_QUEUED = 256
"""For each other worker, then a call fails at once."""
RECONNECT_MS = 10
"""Between two attempts to connect: a successor's sockets are found within 20 ms of its start."""
LINGER_MS = 50
"""For other workers to take what is queued for them when this one stops, then it is lost. They usually need less than a
millisecond.
"""
CALL_SECONDS = 4.0
"""For an answer: longer than a worker takes to release its sessions and its successor to start."""
SNAPSHOT_SECONDS = 0.2
"""For a snapshot, then it is asked for again: the first call may have gone to a predecessor that was dying."""
SNAPSHOT_ATTEMPTS = 5
"""In one go. Control begins again each second."""
UNANSWERED = bytes(8)
"""Stands for the number in a call that has no answer."""
BATCH = 512
"""Messages that are read before the loop does other work."""

Wanted = TypeVar("Wanted")


@dataclass(frozen=True, slots=True)
class Handlers:
    """What is called for each kind of message."""

    fact: Callable[[Envelope], None]
    snapshot: Callable[[Snapshot], None]
    own_snapshot: Callable[[], Snapshot]
    passed_on: Callable[[PassedOn | PassedOnAgain], Awaitable[Reply | None]]
    room_closed: Callable[[RoomClosedElsewhere], None]
    ends: Callable[[EndsHeard], None]
    own_tombstones: Callable[[], EndsHeard]
    lost: Callable[[str], None]
    """Counts messages that were lost, by kind: unreadable, unanswered, no room in the queue."""
    unknown: Callable[[Contract], None]
    """Counts messages, and parts of messages, that were skipped because only a later release has them."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A call that waits for its answer."""

    slot: Slot
    call: Rpc
    answer: asyncio.Future[Answer]


class Bus:
    """This worker's sockets to all others. All methods run on the loop's thread."""

    def __init__(self, directory: Path, slot: Slot, others: Iterable[Slot], handlers: Handlers) -> None:
        self._handlers = handlers
        self._directory = directory
        self._context = zmq.Context(io_threads=1)
        self._is_reading = False
        self._asked: dict[int, _Asked] = {}
        self._last_call = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._readers: dict[zmq.Socket[bytes], _Reader] = {}

        self._paths = [directory / f"worker-{slot}.{end}" for end in ("pub", "rpc")]
        self._bound: dict[Path, os.stat_result | None] = {}
        """The files of our sockets; None for one that was swept and is to be bound anew."""
        self._facts_out = self._socket(zmq.PUB, FACTS_QUEUED)
        self._bind(self._facts_out, self._paths[0])
        self._facts_in = self._socket(zmq.SUB, FACTS_QUEUED)
        self._facts_in.setsockopt(zmq.SUBSCRIBE, b"")
        self._calls_in = self._socket(zmq.ROUTER, CALLS_QUEUED)
        self._bind(self._calls_in, self._paths[1])
        self._calls_out: dict[Slot, zmq.Socket[bytes]] = {}
        for other in others:
            self.connect(other)

    def start(self) -> None:
        """Begins to read, on the running loop."""
        self._is_reading = True
        for socket, take in ((self._facts_in, self._take_fact), (self._calls_in, self._take_call)):
            self._readers[socket] = _Reader(socket, take)
        for socket in self._calls_out.values():
            self._readers[socket] = _Reader(socket, self._take_answer)

    def look(self) -> None:
        """Looks whether other workers still find our sockets, and binds them anew when their files were swept. Call it
        each second. Who is connected stays so.
        """
        for socket, path in zip((self._facts_out, self._calls_in), self._paths, strict=True):
            bound = self._bound[path]
            if bound is None:
                with suppress(zmq.ZMQError, OSError):
                    self._bind(socket, path)
                    log.warning("a socket that was swept is bound anew", extra={"file": path.name})
            elif not _is_file(path, bound):
                # Its thread removes the file of a socket that is unbound, whichever it is by then: so that is for the
                # next look.
                self._bound[path] = None
                with suppress(zmq.ZMQError):
                    socket.unbind(f"ipc://{path}")

    def _bind(self, socket: "zmq.Socket[bytes]", path: Path) -> None:
        socket.bind(f"ipc://{path}")
        self._bound[path] = path.stat()

    def connect(self, slot: Slot) -> None:
        """Connects to a slot that has a worker or is about to have one. It holds for later workers of the slot, too,
        until `disconnect`.
        """
        if slot in self._calls_out:
            return
        self._facts_in.connect(self._end_of(slot, "pub"))
        socket = self._calls_out[slot] = self._socket(zmq.DEALER, CALLS_QUEUED)
        socket.connect(self._end_of(slot, "rpc"))
        if self._is_reading:
            self._readers[socket] = _Reader(socket, self._take_answer)

    def disconnect(self, slot: Slot) -> None:
        """Disconnects from a slot that is to have no worker any more."""
        socket = self._calls_out.pop(slot, None)
        if socket is None:
            return
        self._facts_in.disconnect(self._end_of(slot, "pub"))
        if reader := self._readers.pop(socket, None):
            reader.stop()
        socket.close()

    def stop(self) -> None:
        """Ends. Queued messages, such as answers that another worker waits for, still have LINGER_MS to be sent."""
        for task in self._tasks:
            task.cancel()
        for reader in self._readers.values():
            reader.stop()
        self._context.destroy(linger=LINGER_MS)
        for path in self._paths:
            path.unlink(missing_ok=True)

    def announce(self, envelope: Envelope) -> None:
        """Sends a fact to all workers."""
        # A PUB socket drops messages for a worker whose queue is full.
        self._facts_out.send(codec.pack_envelope(envelope), zmq.NOBLOCK)

    def ask_snapshot(self, slot: Slot) -> None:
        """Asks a worker for its standing facts until it answers; `Handlers.snapshot` gets them."""
        self._spawn(self._fetch(slot, SnapshotAsked(), Snapshot, self._handlers.snapshot))

    def ask_ends(self, slot: Slot) -> None:
        """Asks a worker how sessions ended, until it answers; `Handlers.ends` gets them."""
        self._spawn(self._fetch(slot, EndsAsked(), EndsHeard, self._handlers.ends))

    def tell_ends(self, slots: Iterable[Slot], ends: EndsHeard) -> None:
        """Tells these workers how some sessions ended. A worker that misses the message asks at its next start."""
        packed = codec.pack_rpc(ends)
        for slot in slots:
            if (socket := self._calls_out.get(slot)) is not None:
                self._send(socket, [UNANSWERED, packed])

    def close_room(self, call: RoomClosedElsewhere) -> None:
        """Tells all other workers to close a room."""
        for slot in self._calls_out:
            self._send_call(slot, call)

    async def call(self, slot: Slot, call: Rpc, seconds: float = CALL_SECONDS) -> Answer | None:
        """Returns the answer of one worker; None when there is none within `seconds`."""
        number = self._send_call(slot, call)
        if number is None:
            return None
        asked = _Asked(slot, call, asyncio.get_running_loop().create_future())
        self._asked[number] = asked
        try:
            async with asyncio.timeout(seconds):
                return await asked.answer
        except TimeoutError:
            self._handlers.lost("unanswered")
            return None
        finally:
            del self._asked[number]

    def ask_again(self, slot: Slot) -> None:
        """Sends the slot's new worker the calls that its predecessor has not answered. A call that the predecessor had
        carried out gets the same answer as an HTTP request that is repeated.
        """
        for number, asked in self._asked.items():
            is_passed_on = isinstance(asked.call, PassedOn | PassedOnAgain)
            if asked.slot == slot and slot in self._calls_out and is_passed_on:
                self._send(self._calls_out[slot], [number.to_bytes(8, "big"), codec.pack_rpc(asked.call)])

    async def _fetch(self, slot: Slot, question: Rpc, kind: type[Wanted], take: Callable[[Wanted], None]) -> None:
        for _ in range(SNAPSHOT_ATTEMPTS):
            answer = await self.call(slot, question, SNAPSHOT_SECONDS)
            if isinstance(answer, kind):
                take(answer)
            if answer is not None:
                # A worker that does not know the question does not know it next time either.
                return

    def _send_call(self, slot: Slot, call: Rpc) -> int | None:
        socket = self._calls_out.get(slot)
        if socket is None:
            return None
        self._last_call += 1
        frames = [self._last_call.to_bytes(8, "big"), codec.pack_rpc(call)]
        return self._last_call if self._send(socket, frames) else None

    def _send(self, socket: "zmq.Socket[bytes]", frames: list[bytes]) -> bool:
        try:
            socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            self._handlers.lost("queue_full")
            return False
        if reader := self._readers.get(socket):
            reader.look_again()
        return True

    def _take_fact(self, frames: list[bytes]) -> None:
        skip = self._skip(Contract.FACTS, "unreadable_fact")
        try:
            envelope = codec.unpack_envelope(frames[0], skip)
        except codec.Unreadable as error:
            skip(error)
            return
        self._handlers.fact(envelope)

    def _take_call(self, frames: list[bytes]) -> None:
        skip = self._skip(Contract.CALLS, "unreadable_call")
        if len(frames) != 3:
            skip(codec.Unreadable(f"{len(frames)} frames"))
            return
        caller, number, packed = frames
        try:
            call = codec.unpack_rpc(packed, skip)
        except codec.Unreadable as error:
            skip(error)
            if number != UNANSWERED:
                self._send_answer(caller, number, CallUnknown())
            return
        match call:
            case SnapshotAsked():
                self._send_answer(caller, number, self._handlers.own_snapshot())
            case RoomClosedElsewhere():
                self._handlers.room_closed(call)
            case EndsAsked():
                self._send_answer(caller, number, self._handlers.own_tombstones())
            case EndsHeard():
                self._handlers.ends(call)
            case _:
                self._spawn(self._answer_passed_on(caller, number, call))

    async def _answer_passed_on(self, caller: bytes, number: bytes, call: PassedOn | PassedOnAgain) -> None:
        reply = await self._handlers.passed_on(call)
        if reply is not None:
            self._send_answer(caller, number, reply)

    def _send_answer(self, caller: bytes, number: bytes, answer: Answer) -> None:
        self._send(self._calls_in, [caller, number, codec.pack_answer(answer)])

    def _take_answer(self, frames: list[bytes]) -> None:
        skip = self._skip(Contract.ANSWERS, "unreadable_answer")
        if len(frames) != 2:
            skip(codec.Unreadable(f"{len(frames)} frames"))
            return
        number, packed = frames
        answer: Answer
        try:
            answer = codec.unpack_answer(packed, skip)
        except codec.Unreadable as error:
            skip(error)
            # Ends the wait for the answer.
            answer = CallUnknown()
        asked = self._asked.get(int.from_bytes(number, "big"))
        if asked is not None and not asked.answer.done():
            asked.answer.set_result(answer)

    def _skip(self, contract: Contract, kind: str) -> codec.Skip:
        def skip(error: codec.Unreadable) -> None:
            if isinstance(error, codec.UnknownKind):
                self._handlers.unknown(contract)
            else:
                self._handlers.lost(kind)
            log.debug("a message could not be read", extra={"kind": kind, "reason": str(error)})

        return skip

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _end_of(self, slot: Slot, end: str) -> str:
        return f"ipc://{self._directory}/worker-{slot}.{end}"

    def _socket(self, kind: int, queued: int) -> "zmq.Socket[bytes]":
        socket: zmq.Socket[bytes] = self._context.socket(kind)
        socket.setsockopt(zmq.SNDHWM, queued)
        socket.setsockopt(zmq.RCVHWM, queued)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
        return socket


def _is_file(path: Path, known: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.stat(), known)
    except OSError:
        return False


class _Reader:
    """Reads a socket whenever it has a message. Its descriptor is edge-triggered, and sending consumes the edge, too:
    call `look_again` after each send.
    """

    def __init__(self, socket: "zmq.Socket[bytes]", take: Callable[[list[bytes]], None]) -> None:
        self._socket = socket
        self._take = take
        self._loop = asyncio.get_running_loop()
        self._stopped = False
        self._planned = False
        self._loop.add_reader(socket.FD, self._read)
        self.look_again()

    def look_again(self) -> None:
        """Schedules a read."""
        if not self._planned:
            self._planned = True
            self._loop.call_soon(self._read)

    def stop(self) -> None:
        """Reads no more."""
        self._stopped = True
        self._loop.remove_reader(self._socket.FD)

    def _read(self) -> None:
        self._planned = False
        for _ in range(BATCH):
            if self._stopped:
                return
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._take(frames)
        self.look_again()
