"""The bar for a dead worker: `make kills`, twenty kills in a row with two workers and fifty sessions in ten rooms, on
a quiet machine. Without it two kills and ten sessions, which are held to everything but the length of the gaps.
"""

import asyncio
import itertools
import os
import signal
import time

import pytest

from tests.system.asking import counter, delete, patch
from tests.system.relay_process import Relay
from tests.system.test_chaos import Listener, Talker, Watched
from tests.system.watched import percentile, told
from tests.system.worker_pids import pid_by_slot, until_gone

IS_BY_HAND = "MILLRACE_KILLS" in os.environ
KILLS = int(os.environ.get("MILLRACE_KILLS", "2"))
ROOMS = 10 if IS_BY_HAND else 2
LISTENERS = 4
PAUSE = 1.2
"""Between two kills: longer than `quick_death_seconds`."""


def gap(times: list[float], since: float) -> float:
    """The longest time without a packet, in the second after `since`."""
    during = [at for at in times if since - 0.1 < at < since + 1]
    return max((later - earlier for earlier, later in itertools.pairwise(during)), default=1.1)


@pytest.mark.timeout(600)
async def test_victims_of_kills_in_a_row_miss_a_moment_and_nothing_else() -> None:
    async with Relay(workers=2, settings={"workers.quick_death_seconds": "1"}) as relay:
        watched: list[tuple[Watched, set[int]]] = []
        clients = []
        for room in range(ROOMS):
            talker = Talker(f"{relay.url}/whip/room-{room}")
            await talker.open(room % 2)
            await talker.connected()
            clients.append(talker)
            for number in range(LISTENERS):
                listener = Listener(f"{relay.url}/whep/room-{room}")
                await listener.open(number % 2)
                await listener.connected()
                clients.append(listener)
                # A kill of either side's worker is felt: of the one that opens, or the one that seals.
                watched.append((Watched(listener), {room % 2, number % 2}))
        for one, _ in watched:
            await one.until_packets(10, 10)
        victims: list[float] = []
        others: list[float] = []
        quiet: list[float] = []
        for kill in range(KILLS):
            await asyncio.sleep(PAUSE)
            now = time.monotonic()
            quiet += [gap(one.times, now - 1) for one, _ in watched]
            slot = kill % 2
            pid = pid_by_slot(relay)[slot]
            os.kill(pid, signal.SIGKILL)
            await until_gone(pid, 5)
            await asyncio.sleep(PAUSE)
            for one, slots in watched:
                (victims if slot in slots else others).append(gap(one.times, now))
            await relay.until_ready()
            assert {await patch(client) for client in clients} == {204}
        print()
        print(told(f"{len(clients)} sessions, nothing happens", quiet))
        print(told(f"victims of {KILLS} kills", victims))
        print(told("everybody else", others))
        assert [one.states + one.srtp.refused for one, _ in watched] == [[]] * len(watched)
        assert sum(one.repeated for one, _ in watched) == 0
        assert await counter(relay, "millrace_sessions_lost_total") == 0
        assert await counter(relay, 'millrace_drops_total{direction="in",reason="srtp_replay"}') == 0
        if IS_BY_HAND:
            assert percentile(victims, 0.5) < 0.15
            assert percentile(victims, 0.95) < 0.3
        for client in clients:
            assert await delete(client) == 200
            await client.close()
