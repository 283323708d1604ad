"""One worker more or less while the server runs: no request fails, no call ends. `MILLRACE_COUNTS=10` goes up and down
so many times.
"""

import asyncio
import os
import signal
import time

import aiohttp
import pytest

from tests.clients.aiortc_client import Publisher, Viewer
from tests.clients.raw_client import RawClient
from tests.system.asking import TOO_LATE, counter, delete, metrics, move, patch
from tests.system.posts import Posts
from tests.system.relay_process import Relay
from tests.system.watched import told, watched_call
from tests.system.worker_pids import pid_by_slot, until_gone

TIMES = int(os.environ.get("MILLRACE_COUNTS", "2"))
SETTINGS = {"workers.quick_death_seconds": "1"}
ROLLED_OUT = "all workers have the new configuration"


@pytest.fixture(params=["handover", "ebpf"])
def steered(request: pytest.FixtureRequest) -> dict[str, str]:
    """Settings for either way in which datagrams find their worker."""
    if request.param == "ebpf" and os.geteuid() != 0:
        pytest.skip("loading a program needs root")
    return SETTINGS | {"media.steering": f'"{request.param}"'}


async def more(relay: Relay, times: int = 1) -> None:
    """One worker more; `times` in all."""
    os.kill(relay.pid, signal.SIGTTIN)
    await relay.until_logged("worker added", times)
    await relay.until_ready()


def up(relay: Relay) -> dict[str, float]:
    """What an alert looks at."""
    return {name: value for name, value in metrics(relay).items() if name.startswith("millrace_worker_up")}


async def until_some_come(posts: Posts, slot: str) -> None:
    before = posts.slots[slot]
    async with asyncio.timeout(30):
        while posts.slots[slot] < before + 5:
            await asyncio.sleep(0.01)


BOTH = {'millrace_worker_up{slot="0"}': 1, 'millrace_worker_up{slot="1"}': 1}
ONE = {'millrace_worker_up{slot="0"}': 1}


async def test_up_and_down_again_and_no_request_fails(steered: dict[str, str]) -> None:
    async with Relay(workers=2, settings=steered) as relay:
        async with Posts(relay, 2) as kept, Posts(relay, 2, keeps=False) as fresh:
            for times in range(1, TIMES + 1):
                await until_some_come(fresh, "01")
                os.kill(relay.pid, signal.SIGTTOU)
                await relay.until_logged("the slot is empty", times, 60)
                assert up(relay) == ONE
                await relay.until_ready()
                await more(relay, times)
                assert up(relay) == BOTH
        posts = kept.statuses + fresh.statuses
        print(posts, f"slowest {max(kept.slowest, fresh.slowest) * 1000:.0f} ms", fresh.slots)
        assert set(posts) == {201}
        assert set(kept.ends + fresh.ends) == {200}, kept.lost + fresh.lost
        assert set(fresh.slots) == {"00", "01"}, "or nobody was there to lose"
        assert "worker was" not in relay.log()
        defects = [line for line in relay.log().splitlines() if "Traceback" in line or "ERROR" in line]
        assert defects == []


@pytest.mark.timing(cores=1)
async def test_calls_move_away_from_a_worker_that_leaves_and_are_noticed_by_nobody(steered: dict[str, str]) -> None:
    async with Relay(workers=2, settings=steered) as relay, watched_call(relay) as (publisher, viewer, watched):
        states, gaps, times = list(watched.states), [], 0
        # By itself a gap is a few milliseconds; the encoder and decoder of this test share the cores with the relay. It
        # is tried again when the machine stood still each time.
        while times < TIMES or (times < 3 * TIMES and min(gaps) >= 1):
            times += 1
            began = time.monotonic()
            os.kill(relay.pid, signal.SIGTTOU)
            await relay.until_logged("the slot is empty", times, 60)
            await watched.until_packets(time.monotonic() + 0.5, 30)
            assert [await patch(client) for client in (publisher, viewer)] == [204, 204]
            gaps.append(watched.gap(began))
            await more(relay, times)
            for client in (publisher, viewer):
                async with asyncio.timeout(30):
                    # The others hear of a worker that joins within a second.
                    while (came := await move(relay, client.session_url, 1)) in ((409, "no worker"), TOO_LATE):
                        await asyncio.sleep(0.05)
                assert came == (200, "moved")
        print(told("a worker leaves", gaps))
        assert min(gaps) < 1
        assert watched.states == states
        found = metrics(relay)
        assert found["millrace_sessions_adopted_total"] == 0
        assert found["millrace_moves_failed_total"] <= found["millrace_moves_out_total"] / 2, "most go at once"
        assert found['millrace_drops_total{direction="in",reason="srtp_replay"}'] == 0
        assert [await delete(client) for client in (viewer, publisher)] == [200, 200]


async def test_a_client_of_an_empty_slot_still_has_its_checks_answered(steered: dict[str, str]) -> None:
    patient = {"timeouts.ice_seconds": "120", "timeouts.consent_seconds": "120"}
    async with Relay(workers=2, settings=steered | patient) as relay:
        with RawClient(f"{relay.url}/whep/hall") as connected, RawClient(f"{relay.url}/whep/hall") as late:
            for client in (connected, late):
                await asyncio.to_thread(client.post, 1)
            await asyncio.to_thread(connected.connect)
            os.kill(relay.pid, signal.SIGTTOU)
            await relay.until_logged("the slot is empty", 1, 60)
            # Its name still says slot 1.
            assert await asyncio.to_thread(connected.is_answered)
            # It has an answer, and has not begun to connect.
            assert await asyncio.to_thread(late.is_answered)
            await asyncio.to_thread(late.connect)


async def test_who_comes_while_a_slot_is_empty_finds_a_worker(steered: dict[str, str]) -> None:
    async with Relay(workers=2, settings=steered) as relay:
        os.kill(relay.pid, signal.SIGTTOU)
        await relay.until_logged("the slot is empty")
        async with watched_call(relay, audio=False, viewer_slot=0) as (publisher, viewer, watched):
            await more(relay)
            async with Viewer(f"{relay.url}/whep/hall", audio=False) as late:
                await late.open(1)
                await late.until_frames(10)
            assert [await patch(client) for client in (publisher, viewer)] == [204, 204]
            since = time.monotonic()
            await watched.until_packets(since, 30)
        assert [metrics(relay)[f'millrace_defects_total{{slot="{slot}"}}'] for slot in (0, 1)] == [0, 0]


async def test_a_session_of_a_worker_that_has_just_begun_can_be_ended_through_another() -> None:
    async with Relay(workers=2, settings=SETTINGS) as relay:
        for times in (1, 2, 3):
            os.kill(relay.pid, signal.SIGTTOU)
            await relay.until_logged("the slot is empty", times)
            # While there is but one worker, this connection is its.
            kept = aiohttp.TCPConnector(limit=1, keepalive_timeout=60)
            async with (
                aiohttp.ClientSession(connector=kept) as first,
                Posts(relay, 1, keeps=False, ends=False) as posts,
            ):
                async with first.get(f"{relay.url}/") as answer:
                    await answer.read()
                os.kill(relay.pid, signal.SIGTTIN)
                async with asyncio.timeout(30):
                    while not (seen := [one for one in posts.opened if "/01." in one]):
                        await asyncio.sleep(0.001)
                async with first.delete(relay.url + seen[0]) as answer:
                    assert answer.status == 200, await answer.text()
            await relay.until_logged("worker added", times)
            await relay.until_ready()


async def test_there_is_no_worker_less_than_one_nor_more_than_there_is_room_for() -> None:
    async with Relay(workers=2, settings=SETTINGS) as relay:
        room = max(2, len(os.sched_getaffinity(0)))
        for number in range(room - 1):
            os.kill(relay.pid, signal.SIGTTIN)
            said = "no worker is added" if number == room - 2 else "one worker more is wanted"
            await relay.until_logged(said, 1 if number == room - 2 else number + 1)
        assert relay.log().count("one worker more") == room - 2
        for number in range(room):
            os.kill(relay.pid, signal.SIGTTOU)
            said = "the last worker stays" if number == room - 1 else "one worker less is wanted"
            await relay.until_logged(said, 1 if number == room - 1 else number + 1)
        await relay.until_ready()
        await relay.until_logged("the slot is empty", room - 1)
        assert up(relay) == ONE


async def test_another_count_in_the_configuration_takes_effect_without_a_new_worker_for_anybody_else() -> None:
    async with Relay(workers=None, settings=SETTINGS, config="[workers]\ncount = 2\n") as relay:
        first = pid_by_slot(relay)[0]
        relay.config_path.write_text("[workers]\ncount = 1\n")
        os.kill(relay.pid, signal.SIGHUP)
        await relay.until_logged("the slot is empty")
        assert relay.worker_pids() == [first]
        # With something else that workers are replaced for.
        relay.config_path.write_text("[workers]\ncount = 2\n[limits]\nsdp_lines = 2001\n")
        os.kill(relay.pid, signal.SIGHUP)
        await relay.until_logged(ROLLED_OUT)
        await relay.until_logged("worker added")
        await relay.until_ready()
        assert len(relay.worker_pids()) == 2
        assert first not in relay.worker_pids()
        assert up(relay) == BOTH


async def test_a_new_master_goes_on_with_as_many_workers_as_there_were() -> None:
    async with Relay(workers=2, settings=SETTINGS) as relay, Publisher(f"{relay.url}/whip/hall", audio=False) as one:
        await one.open(0)
        await one.connected()
        os.kill(relay.pid, signal.SIGTTOU)
        await relay.until_logged("the slot is empty")
        await relay.kill_master()
        await relay.until_logged("the master is gone")
        await relay.start()
        await relay.until_ready()
        assert up(relay) == ONE
        assert len(relay.worker_pids()) == 1
        assert await patch(one) == 204
        await more(relay)
        assert up(relay) == BOTH
        # An upgrade keeps what was added, too.
        os.kill(relay.pid, signal.SIGUSR2)
        await relay.until_logged(ROLLED_OUT)
        await relay.until_ready()
        assert up(relay) == BOTH
        assert await counter(relay, "millrace_sessions_lost_total") == 0
        assert await delete(one) == 200


async def test_a_new_master_with_another_wish_follows_it() -> None:
    async with Relay(workers=2, settings=SETTINGS) as relay, Publisher(f"{relay.url}/whip/hall", audio=False) as one:
        await one.open(0)
        await one.connected()
        await relay.kill_master()
        relay.workers = 1
        await relay.start()
        await relay.until_logged("the slot is empty")
        await relay.until_ready()
        assert up(relay) == ONE
        assert await patch(one) == 204


async def test_a_worker_that_is_killed_while_it_leaves_has_a_successor_that_leaves_with_its_sessions(
    steered: dict[str, str],
) -> None:
    async with Relay(workers=2, settings=steered) as relay, watched_call(relay) as (publisher, viewer, watched):
        states, began = list(watched.states), time.monotonic()
        os.kill(relay.pid, signal.SIGTTOU)
        await relay.until_logged("the worker moves its sessions away")
        pid = pid_by_slot(relay)[1]
        os.kill(pid, signal.SIGKILL)
        await until_gone(pid, 5)
        await relay.until_logged("the worker moves its sessions away", 2)
        await watched.until_packets(time.monotonic() + 0.5, 30)
        print(told("killed while it leaves", [watched.gap(began)]))
        assert watched.states == states
        assert watched.gap(began) < 5
        assert [await patch(client) for client in (publisher, viewer)] == [204, 204]
        assert [await delete(client) for client in (viewer, publisher)] == [200, 200]
        await relay.until_logged("the slot is empty")
        await relay.until_ready()
        assert await counter(relay, "millrace_sessions_lost_total") == 0


async def test_a_worker_that_is_wanted_again_while_it_leaves_is_replaced_and_its_calls_go_on() -> None:
    async with Relay(workers=2, settings=SETTINGS) as relay, watched_call(relay) as (publisher, viewer, watched):
        began = time.monotonic()
        os.kill(relay.pid, signal.SIGTTOU)
        await relay.until_logged("the worker moves its sessions away")
        await more(relay)
        await watched.until_packets(time.monotonic() + 0.5, 30)
        assert watched.gap(began) < 5
        assert up(relay) == BOTH
        assert [await patch(client) for client in (publisher, viewer)] == [204, 204]


async def test_a_worker_that_cannot_start_is_given_up_and_the_others_go_on() -> None:
    settings = {"workers.crash_limit": "2", "workers.respawn_backoff_ms": "1", **SETTINGS}
    async with Relay(workers=2, settings=settings) as relay:
        os.kill(relay.pid, signal.SIGTTOU)
        await relay.until_logged("the slot is empty")
        obstacle = relay.runtime / "worker-1.pub"
        obstacle.mkdir()
        os.kill(relay.pid, signal.SIGTTIN)
        await relay.until_logged("slot 1 is not replaced: worker 1 died 2 times in a row")
        await relay.until_ready()
        assert up(relay) == ONE
        obstacle.rmdir()
        await more(relay, 2)
        assert up(relay) == BOTH
