"""The only import of relay._engine: packs commands for the engine, and reads its events when its descriptor is
readable. It must never look at a packet, nor decide on an event. Read next: `relay/engine/shell/src/lib.rs`, the other
side.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress

from millrace.relay._engine import Engine  # noqa: TID251
from millrace.relay.contract.boot import Boot
from millrace.relay.contract.codec import pack_commands, unpack_events, unpack_plain
from millrace.relay.contract.commands import Command, OpenTransport
from millrace.relay.contract.engine_config import engine_config, pack_engine_config
from millrace.relay.contract.events import (
    AdoptionDone,
    Event,
    MoveDone,
    Outcome,
    TransportAdopted,
    TransportClosed,
)
from millrace.relay.contract.ids import TransportId

STRANGERS = 256
"""Connections that have shown no valid check yet; `MAX_STRANGERS` of `relay/engine/shell/src/tcp/strangers.rs`."""
BEHIND_SECONDS = 0.005
"""Until commands are submitted again to an engine whose queue is full: it takes thousands of commands a second."""

Handle = Callable[[Event], None]


class Media:
    """This worker's engine."""

    def __init__(self, boot: Boot) -> None:
        self._handle: Handle | None = None
        self._open: set[TransportId] = set()
        self._all_closed: asyncio.Event | None = None
        self._adoption_done = asyncio.Event()
        self._heard = 0
        """How many events have come so far."""
        self._waiting: deque[bytes] = deque()
        """Batches of commands that the engine has no room for yet. The number of sessions bounds them."""
        self._engine = Engine(
            [media.fd for media in boot.media_sockets],
            boot.slot,
            pack_engine_config(engine_config(boot)),
            boot.arena,
            list(boot.doorbells),
            boot.flow_map,
            tcp_descriptors(boot),
        )

    def start(self) -> None:
        """Starts the engine's thread. It needs no event loop, as its events wait."""
        self._engine.start()

    def listen(self, handle: Handle) -> None:
        """Has `handle` called with each event, on the running loop."""
        self._handle = handle
        asyncio.get_running_loop().add_reader(self._engine.fileno(), self._drain)

    async def adoption_done(self, seconds: float) -> bool:
        """Waits until the engine has named all sessions that it adopted; returns False after `seconds` without an
        event.
        """
        while not self._adoption_done.is_set():
            heard = self._heard
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._adoption_done.wait()
            if self._heard == heard:
                return self._adoption_done.is_set()
        return True

    def submit(self, commands: Iterable[Command]) -> None:
        """Submits commands, in order. Answers, if any, are events."""
        commands = tuple(commands)
        for command in commands:
            if isinstance(command, OpenTransport):
                self._open.add(command.transport)
        self._waiting.append(pack_commands(commands))
        if len(self._waiting) == 1:
            self._send()

    def stats(self) -> list[dict[str, int]]:
        """Returns the engines' counters by name, for each slot."""
        counters: list[dict[str, int]] = unpack_plain(self._engine.stats())
        return counters

    async def wait_closed(self, seconds: float) -> None:
        """Waits until the engine has said goodbye to every client (DTLS close_notify), for at most `seconds`."""
        if not self._open:
            return
        self._all_closed = asyncio.Event()
        try:
            async with asyncio.timeout(seconds):
                await self._all_closed.wait()
        except TimeoutError:
            return

    def stop(self) -> None:
        """Ends the engine's thread."""
        asyncio.get_running_loop().remove_reader(self._engine.fileno())
        self._engine.stop(goodbye=True)

    def release(self) -> None:
        """Ends the engine's thread without a goodbye, as a successor adopts the sessions."""
        self._engine.stop(goodbye=False)

    async def all_sent(self, seconds: float) -> None:
        """Waits until the engine has all commands, for at most `seconds`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._waiting:
                    await asyncio.sleep(BEHIND_SECONDS)

    def _send(self) -> None:
        while self._waiting:
            try:
                self._engine.submit(self._waiting[0])
            except BufferError:
                # The queue is full. A lost command would leave a session half open, so all wait in order.
                asyncio.get_running_loop().call_later(BEHIND_SECONDS, self._send)
                return
            self._waiting.popleft()

    def _drain(self) -> None:
        for event in unpack_events(self._engine.events()):
            self._heard += 1
            match event:
                case TransportAdopted():
                    self._open.add(event.transport)
                case TransportClosed():
                    self._open.discard(event.transport)
                case MoveDone(outcome=Outcome.MOVED):
                    self._open.discard(event.transport)
            if self._handle is not None:
                self._handle(event)
            if isinstance(event, AdoptionDone):
                self._adoption_done.set()
        if self._all_closed is not None and not self._open:
            self._all_closed.set()


def tcp_descriptors(boot: Boot) -> tuple[list[int], int, list[int], int] | None:
    """Returns the engine's argument `tcp`. Each session may have two connections, as a client that comes back does."""
    if boot.tcp is None:
        return None
    most = 2 * boot.config.limits.sessions_per_worker + STRANGERS
    return list(boot.tcp.listeners), boot.tcp.inbox, list(boot.tcp.doors), most
