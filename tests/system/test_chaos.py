"""Workers and their master are killed, replaced, added and given new configurations at random moments, while clients
come and go: whoever is connected notices nothing but a gap.

`MILLRACE_CHAOS_SECONDS` says how long, `MILLRACE_CHAOS_SEED` which moments; `make chaos SECONDS=3600 SEED=7` runs it by
hand. However short it is, everything that can happen happens.
"""

import asyncio
import itertools
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

import aiohttp
import pylibsrtp
import pytest
from aioice.ice import StunProtocol
from aioice.stun import TransactionError
from aiortc import RTCRtpReceiver

from tests.clients.aiortc_client import Client, Publisher, Tone, Viewer
from tests.clients.raw_client import request
from tests.system.asking import counter, delete, patch
from tests.system.relay_process import Relay
from tests.system.watched import told
from tests.system.worker_pids import until_gone

SECONDS = float(os.environ.get("MILLRACE_CHAOS_SECONDS", "60"))
SEED = int(os.environ.get("MILLRACE_CHAOS_SEED", "1"))
ROOMS = ("hall", "attic")
MOST = 12
"""Clients at once: a Python client costs a core some percent."""
PAUSE = (0.3, 1.2)
"""Seconds between two events: a worker may be hit while it still starts."""
DISTURBED_SECONDS = 10
"""How long a reload may be under way on a busy machine."""


class Talker(Client):
    """Sends a tone."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.connection.addTrack(Tone())


class Listener(Client):
    """Hears a tone, and decodes nothing of it."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.connection.addTransceiver("audio", direction="recvonly")


class Srtp:
    """A client's SRTP, which counts what it refuses: what was sent twice, or under the wrong key or index."""

    def __init__(self, real: pylibsrtp.Session) -> None:
        self._real = real
        self.refused: list[str] = []

    def unprotect(self, packet: bytes) -> bytes:
        return self._noted(self._real.unprotect, packet)

    def unprotect_rtcp(self, packet: bytes) -> bytes:
        return self._noted(self._real.unprotect_rtcp, packet)

    def _noted(self, unprotect: Callable[[bytes], bytes], packet: bytes) -> bytes:
        try:
            return unprotect(packet)
        except pylibsrtp.Error as error:
            self.refused.append(str(error))
            raise


def clock() -> str:
    """As in the relay's log."""
    return time.strftime("%H:%M:%S")


class Watched:
    """A connected client, and whatever it could notice."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.times: list[float] = []
        self.states: list[str] = []
        self.numbers: set[tuple[int, int]] = set()
        self.repeated = 0
        self.unanswered: list[str] = []
        """When its last checks of consent were sent, since the last one that was answered. aiortc gives up after six.
        Each is sent up to three times, as others do it: a Python client that gets no time within half a second has not
        lost its relay.
        """
        self.longest_unanswered: list[str] = []
        connection = client.connection
        transport = connection.getTransceivers()[0].receiver.transport
        self.srtp = Srtp(transport._rx_srtp)
        transport._rx_srtp = self.srtp
        for transceiver in connection.getTransceivers():
            self._note(transceiver.receiver)
        for pair in transport.transport._connection._nominated.values():
            self._note_checks(pair.protocol)
        connection.on("connectionstatechange", lambda: self._note_state(connection.connectionState))
        connection.on("iceconnectionstatechange", lambda: self._note_state(connection.iceConnectionState))

    def _note_state(self, state: str) -> None:
        self.states.append(f"{state} at {clock()}")

    def _note_checks(self, protocol: StunProtocol) -> None:
        ask = protocol.request

        async def noting(*arguments, **named):  # type: ignore[no-untyped-def]
            asked_at = clock()
            try:
                answer = await ask(*arguments, **named | {"retransmissions": 2})
            except TransactionError:
                self.unanswered.append(asked_at)
                if len(self.unanswered) > len(self.longest_unanswered):
                    self.longest_unanswered = list(self.unanswered)
                raise
            self.unanswered.clear()
            return answer

        protocol.request = noting

    def _note(self, receiver: RTCRtpReceiver) -> None:
        take = receiver._handle_rtp_packet

        async def noting(packet, arrival_time_ms):  # type: ignore[no-untyped-def]
            self.times.append(time.monotonic())
            number = (packet.ssrc, packet.sequence_number)
            self.repeated += number in self.numbers
            self.numbers.add(number)
            # Numbers come round after 65,536 packets.
            if len(self.numbers) > 20_000:
                self.numbers.clear()
            await take(packet, arrival_time_ms)

        receiver._handle_rtp_packet = noting

    async def until_packets(self, count: int, seconds: float) -> None:
        before = len(self.times)
        async with asyncio.timeout(seconds):
            while len(self.times) < before + count:
                await asyncio.sleep(0.01)


class Chaos:
    """Everything that happens, from a seed."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._random = random.Random(SEED)
        self.here: list[Watched] = []
        self.done: Counter[str] = Counter()
        self._disturbed_at = 0.0
        self._reloads = 0
        self._hung: list[int] = []

    async def run(self, seconds: float) -> None:
        acts: dict[Callable[[], Awaitable[None]], int] = {
            self.kill: 4,
            self.let_go: 2,
            self.reload: 2,
            self.kill_all: 1,
            self.join: 5,
            self.leave: 3,
            self.hang: 1,
            self.upgrade: 1,
            self.replace_master: 1,
            self.move: 6,
            self.more: 2,
            self.less: 2,
        }
        # Dealt like cards: after each deck each has happened so often, on a slow machine too.
        deck: list[Callable[[], Awaitable[None]]] = []
        decks = 0
        end = time.monotonic() + seconds
        while time.monotonic() < end or (deck and decks == 1):
            if not deck:
                deck = self._random.sample(list(acts), sum(acts.values()), counts=list(acts.values()))
                decks += 1
            act = deck.pop()
            await act()
            self.done[act.__name__] += 1
            await asyncio.sleep(self._random.uniform(*PAUSE))
        for pid in self._hung:
            await until_gone(pid, 30)
        await self._relay.until_ready()

    async def kill(self) -> None:
        self._send(await self._one(), signal.SIGKILL)

    async def _one(self) -> int:
        """A worker, of which there may be none for a moment."""
        async with asyncio.timeout(30):
            while not (pids := self._workers()):
                await asyncio.sleep(0.01)
        return self._random.choice(pids)

    async def kill_all(self) -> None:
        for pid in self._workers():
            self._send(pid, signal.SIGKILL)

    async def replace_master(self) -> None:
        # What all need has to be in some worker's hands, and stays there until the next master is there.
        await self._relay.until_ready()
        await self._relay.kill_master()
        await asyncio.sleep(self._random.uniform(0, 1))
        await self._relay.start()
        await self._relay.until_ready()
        self._disturbed_at = time.monotonic()

    async def let_go(self) -> None:
        self._send(await self._one(), signal.SIGUSR2)

    async def hang(self) -> None:
        self._hung.append(pid := await self._one())
        self._send(pid, signal.SIGSTOP)

    async def upgrade(self) -> None:
        self._send(self._relay.pid, signal.SIGUSR2)

    async def move(self) -> None:
        """Wherever it is, and whether or not a worker is there to say how it went."""
        one = self._random.choice(self.here)
        session, slot = one.client.session_url.rpartition("/")[2], self._random.randrange(2)
        with suppress(OSError):
            answer = await asyncio.to_thread(
                request, "POST", f"{self._relay.admin}/sessions/{session}/move?slot={slot}"
            )
            self.done[f"moves {answer.status}"] += 1

    async def more(self) -> None:
        self._send(self._relay.pid, signal.SIGTTIN)

    async def less(self) -> None:
        self._send(self._relay.pid, signal.SIGTTOU)

    async def reload(self) -> None:
        self._reloads += 1
        self._relay.config_path.write_text(f"[limits]\nsdp_lines = {2000 + self._reloads}\n")
        self._send(self._relay.pid, signal.SIGHUP)

    async def join(self) -> None:
        if len(self.here) >= MOST:
            return
        room = self._random.choice(ROOMS)
        has_talker = any(isinstance(one.client, Talker) and room in one.client.url for one in self.here)
        client: Client = (
            Listener(f"{self._relay.url}/whep/{room}") if has_talker else Talker(f"{self._relay.url}/whip/{room}")
        )
        began = time.monotonic()
        try:
            async with asyncio.timeout(20):
                await client.open()
                await client.connected(20)
        except (aiohttp.ClientError, OSError, TimeoutError, AssertionError):
            # Between its POST and its keys a worker was killed.
            assert self._disturbed_at > began - DISTURBED_SECONDS, "nothing has disturbed it"
            self.done["joins lost"] += 1
            await client.connection.close()
            return
        self.here.append(Watched(client))

    async def leave(self) -> None:
        listeners = [one for one in self.here if isinstance(one.client, Listener)]
        if listeners:
            await self.part(self._random.choice(listeners))

    async def part(self, one: Watched) -> None:
        """Ends a session by its URL, which may take a second try: a worker that was killed takes requests with it."""
        self.here.remove(one)
        began = time.monotonic()
        statuses = []
        while not statuses or statuses[-1] not in (200, 404):
            url = one.client.session_url
            try:
                async with asyncio.timeout(5):
                    statuses.append(await delete(one.client))
            except (aiohttp.ClientError, OSError, TimeoutError):
                one.client.session_url = url
                statuses.append(0)
                continue
            one.client.session_url = "" if statuses[-1] in (200, 404) else url
            assert len(statuses) < 20, statuses
        # A worker that carries a DELETE out and dies leaves its successor to say 404.
        assert statuses[-1] == 200 or self._disturbed_at > began - DISTURBED_SECONDS, statuses
        await one.client.close()

    def noticed(self) -> list[str]:
        """Everything that somebody noticed."""
        return [
            f"{one.client.session_url}: {one.states} {one.srtp.refused} {one.repeated} repeated, "
            f"no answer to the checks of {one.longest_unanswered}"
            for one in self.here
            if one.states or one.srtp.refused or one.repeated
        ]

    def _workers(self) -> list[int]:
        return self._relay.worker_pids()

    def _send(self, pid: int, number: signal.Signals) -> None:
        self._disturbed_at = time.monotonic()
        with suppress(ProcessLookupError):
            os.kill(pid, number)


@pytest.mark.timing
@pytest.mark.timeout(SECONDS + 120)
async def test_nobody_who_is_connected_notices_what_happens_to_workers() -> None:
    settings = {
        "workers.quick_death_seconds": "1",
        "workers.crash_limit": "1000",
        "workers.respawn_backoff_ms": "1",
        "workers.beat_seconds": "2",
    }
    async with (
        Relay(workers=2, settings=settings) as relay,
        Publisher(f"{relay.url}/whip/screen", audio=False) as publisher,
        Viewer(f"{relay.url}/whep/screen", audio=False) as viewer,
    ):
        await publisher.open(0)
        await publisher.connected()
        await viewer.open(1)
        await viewer.until_frames(10)
        chaos = Chaos(relay)
        chaos.here += [Watched(publisher), screen := Watched(viewer)]
        for _ in range(4):
            await chaos.join()
        await chaos.run(SECONDS)
        print(f"seed {SEED}, {SECONDS:.0f} s:", dict(chaos.done))
        print("checks without an answer in a row, at most:", [len(one.longest_unanswered) for one in chaos.here])
        assert chaos.noticed() == [], "\n".join(chaos.noticed())
        for one in chaos.here:
            assert await patch(one.client) == 204
        for one in chaos.here:
            if isinstance(one.client, Listener):
                await one.until_packets(10, 10)
        frames = len(viewer.frames)
        await viewer.until_frames(frames + 10)
        times = screen.times
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        print(told("the longest of a viewer", sorted(gaps)[-chaos.done.total() :]))
        assert chaos.noticed() == []
        assert await counter(relay, 'millrace_drops_total{direction="in",reason="srtp_replay"}') == 0
        defects = re.findall(r"panicked|Traceback|the engine refused a command|an input failed", relay.log())
        assert defects == []
        for one in [one for one in chaos.here if one.client not in (publisher, viewer)]:
            await chaos.part(one)
