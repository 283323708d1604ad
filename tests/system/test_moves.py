"""Sessions move between living workers in the middle of calls: by hand, and all of a slot's. No client does anything.

`MILLRACE_MOVES=20` moves each session so often.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest

from millrace.relay.access.grants import make_token
from tests.clients.raw_client import Answered, RawClient, request
from tests.system.asking import counter, delete, metrics, move, patch, until_moved
from tests.system.relay_process import ROOT, Relay
from tests.system.watched import percentile, told, watched_call
from tests.system.worker_pids import pid_by_slot, until_gone

MOVES = int(os.environ.get("MILLRACE_MOVES", "4"))
SECRET = "s" * 32
CONNECTIONS = 16
"""That one of two workers gets none of so many happens once in 30,000 times."""
STEERING = ["handover", *(["ebpf"] if os.geteuid() == 0 else [])]


async def until_slots(relay: Relay, expected: list[tuple[bool, int]]) -> None:
    """Until every worker says so of each slot: whether it is drained, and its sessions."""
    agreed = 0
    async with asyncio.timeout(30):
        while agreed < 8:
            answer = await asyncio.to_thread(request, "GET", f"{relay.admin}/slots")
            found = [(one["drained"], one["sessions"]) for one in json.loads(answer.body)]
            agreed = agreed + 1 if found == expected else 0
            await asyncio.sleep(0.02)


@pytest.mark.timing(cores=1)
@pytest.mark.parametrize("steering", STEERING)
async def test_publisher_and_viewer_move_back_and_forth_and_the_picture_goes_on(steering: str) -> None:
    async with (
        Relay(workers=2, settings={"media.steering": f'"{steering}"'}) as relay,
        watched_call(relay) as (publisher, viewer, watched),
    ):
        states = list(watched.states)
        gaps: list[float] = []
        too_late: list[int] = []
        places = {publisher: 0, viewer: 1}
        for round_ in range(2 * MOVES):
            mover = (publisher, viewer)[round_ % 2]
            places[mover] = 1 - places[mover]
            began = time.monotonic()
            too_late.append(await until_moved(relay, mover.session_url, places[mover]))
            await watched.until_packets(began + 0.3, 20)
            gaps.append(watched.gap(began))
            assert [await patch(client) for client in (publisher, viewer)] == [204, 204]
        print(told(f"moves with {steering}", gaps))
        # By itself it is a few milliseconds; the encoder and two decoders of this test share the cores with the relay.
        assert percentile(gaps, 0.5) < 1
        assert watched.states == states
        assert publisher.connection.iceConnectionState == "completed"
        await viewer.until_frames(len(viewer.frames) + 10)
        found = metrics(relay)
        assert found["millrace_moves_out_total"] == found["millrace_moves_in_total"] == 2 * MOVES
        assert too_late.count(0) >= MOVES, "half of them at once, at least"
        assert found["millrace_moves_failed_total"] == sum(too_late)
        assert found["millrace_sessions_lost_total"] == 0
        for reason in ("srtp_replay", "srtp_authentication"):
            assert await counter(relay, f'millrace_drops_total{{direction="in",reason="{reason}"}}') == 0
        assert await move(relay, publisher.session_url, places[publisher]) == (409, "already there")
        assert await move(relay, publisher.session_url, 7) == (409, "no worker")
        assert [await delete(client) for client in (viewer, publisher)] == [200, 200]
        assert await move(relay, "/00.AAAAAAAAAAAAAAAAAAAAAA", 1) == (404, "session unknown")


async def test_a_drained_slot_gives_its_sessions_away_and_takes_none_until_that_is_undone() -> None:
    # Clients that are never heard of are to be there to the end.
    patient = {"timeouts.ice_seconds": "120", "timeouts.consent_seconds": "120"}
    async with Relay(workers=2, settings=patient) as relay, watched_call(relay) as (publisher, viewer, watched):
        states = list(watched.states)
        session = publisher.session_url.rpartition("/")[2]
        began = time.monotonic()
        said = await command(relay, "drain", "0")
        assert said.returncode == 0, said.stderr
        assert "slot 0" in said.stdout
        await until_slots(relay, [(True, 0), (False, 2)])
        await watched.until_packets(time.monotonic(), 30)
        print(told("drain", [watched.gap(began)]))
        assert (await command(relay, "move", session, "0")).returncode == 1, "the slot is to have no sessions"
        assert (await command(relay, "drain", "1")).returncode == 1, "nobody would be left"
        # Half of these come to the listener of the slot that takes nobody.
        with ExitStack() as stack:
            late = [stack.enter_context(RawClient(f"{relay.url}/whep/hall")) for _ in range(12)]
            for one in late:
                await asyncio.to_thread(one.post)
            assert {one.session[:2] for one in late} == {"01"}
            await asyncio.to_thread(late[0].connect)
            await until_slots(relay, [(True, 0), (False, 14)])
            assert metrics(relay)['millrace_slot_closed{slot="0"}'] == 1
        assert (await command(relay, "drain", "0", "--undo")).returncode == 0
        async with asyncio.timeout(30):
            # The worker that has the session hears of it with its next beat.
            while (await command(relay, "move", session, "0")).returncode:
                await asyncio.sleep(0.1)
        await until_slots(relay, [(False, 1), (False, 13)])
        await watched.until_packets(time.monotonic(), 30)
        assert watched.states == states
        assert [await patch(client) for client in (publisher, viewer)] == [204, 204]


async def test_a_worker_that_leaves_takes_its_calls_to_the_others() -> None:
    async with Relay(workers=2) as relay, watched_call(relay) as (publisher, viewer, watched):
        states, began = list(watched.states), time.monotonic()
        os.kill(relay.pid, signal.SIGTTOU)
        await relay.until_logged("the slot is empty")
        await watched.until_packets(time.monotonic() + 0.5, 30)
        print(told("a worker leaves", [watched.gap(began)]))
        assert watched.states == states
        assert [await patch(client) for client in (publisher, viewer)] == [204, 204]
        os.kill(relay.pid, signal.SIGTTIN)
        await relay.until_logged("worker added")
        await relay.until_ready()
        assert [await delete(client) for client in (viewer, publisher)] == [200, 200]
        assert await counter(relay, "millrace_sessions_lost_total") == 0


async def causes(relay: Relay, client: RawClient) -> set[str | None]:
    """With which a session ended, as all workers tell it; None while it lives, "unknown" from who does not know it."""
    urls = [f"{relay.admin}/sessions/{client.session}"] * CONNECTIONS
    answers = await asyncio.gather(*(asyncio.to_thread(request, "GET", url) for url in urls))
    return {json.loads(answer.body)["cause"] if answer.status == 200 else "unknown" for answer in answers}


async def test_a_session_that_moved_and_ended_has_its_one_cause_at_all_workers_and_at_their_successors() -> None:
    async with Relay(workers=2) as relay:
        with RawClient(f"{relay.url}/whip/hall") as client:
            await asyncio.to_thread(lambda: client.post(slot=0).connect())
            await until_moved(relay, client.session_url, 1)
            client.say_goodbye()
            async with asyncio.timeout(20):
                while await causes(relay, client) != {"closed_by_peer"}:
                    await asyncio.sleep(0.02)
        for slot in (0, 1):
            victim, starts = pid_by_slot(relay)[slot], relay.log().count("worker started")
            os.kill(victim, signal.SIGKILL)
            await until_gone(victim, 20)
            await relay.until_logged("worker started", starts + 1)
            await relay.until_ready()
            async with asyncio.timeout(20):
                # It asks with its first tick.
                while await causes(relay, client) != {"closed_by_peer"}:
                    await asyncio.sleep(0.02)


async def test_the_client_of_a_session_that_moved_is_told_by_all_workers_that_it_was_replaced() -> None:
    token = make_token("devkey", SECRET, identity="ann", room="hall", expires_at=time.time() + 600)
    async with Relay(workers=2, settings={"auth.keys": f'{{ devkey = "{SECRET}" }}'}) as relay:
        url = f"{relay.url}/whip/hall"
        with RawClient(url, token=token) as older, RawClient(url, token=token) as newer:
            await asyncio.to_thread(lambda: older.post(slot=0).connect())
            await until_moved(relay, older.session_url, 1)
            await asyncio.to_thread(newer.post)

            def probe(_: int) -> Answered:
                headers = {"Content-Type": "application/trickle-ice-sdpfrag", "If-Match": older.etag, **older.bearer}
                return request("PATCH", older.session_url, "a=end-of-candidates\r\n", headers)

            async with asyncio.timeout(20):
                # The worker that has it hears of the newer one over the bus.
                while await causes(relay, older) != {"replaced"}:
                    await asyncio.sleep(0.02)
            answers = await asyncio.gather(*(asyncio.to_thread(probe, number) for number in range(CONNECTIONS)))
            assert {(answer.status, answer.reason) for answer in answers} == {(404, "session-replaced")}


async def command(relay: Relay, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "millrace.master", *arguments, "--url", relay.admin]
    return await asyncio.to_thread(subprocess.run, line, cwd=ROOT, capture_output=True, text=True, timeout=60)
