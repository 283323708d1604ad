"""A publisher that crashes, or hangs while its connection goes on, and another one of its room: viewers on both workers
are shown who sends. How soon is proven in virtual time (`core/tests/engine_silence.rs`, `tests/sim/test_silence.py`);
here it has to be before the dead one's consent runs out.
"""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from millrace.relay.access.grants import make_token
from tests.clients.raw_client import RawClient, key_frame, request, until_flows
from tests.system.relay_process import Relay
from tests.system.worker_pids import pid_by_slot

SECRET = "silence-silence-silence-silence-silence"
LIMIT_SECONDS = 20.0
"""Of each wait: less than consent lasts (30 s) since the last packet."""
LOCKED = {"auth.keys": f'{{ devkey = "{SECRET}" }}'}


@pytest.fixture(params=[False, True], ids=["open", "tokens"])
async def relay(request: pytest.FixtureRequest) -> AsyncIterator[Relay]:
    async with Relay(settings=LOCKED if request.param else {}) as relay:
        yield relay


class Client(RawClient):
    """Says its name in every packet."""

    def __init__(self, relay: Relay, protocol: str, name: str, slot: int) -> None:
        token = None
        if relay.settings:
            token = make_token("devkey", SECRET, identity=name, room="hall", expires_at=time.time() + 600)
        super().__init__(f"{relay.url}/{protocol}/hall", token=token)
        self.name = name.encode()
        self.post(slot).connect()

    def sends(self) -> None:
        """One key frame; and what the relay asks is answered."""
        self.send(self.packet(key_frame(self.sequence) + self.name))
        self.until(lambda _: False, 0.01)

    def is_shown(self) -> set[bytes]:
        """The publishers whose packets came since the last call."""
        return {packet[-5:] for packet in self.media(0.05)}


async def until(condition: Callable[[], bool], *senders: Client) -> None:
    """While these publishers send, ten packets a second or so."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        for sender in senders:
            await asyncio.to_thread(sender.sends)
        await asyncio.sleep(0.05)


def room(relay: Relay) -> dict[str, Any]:
    answered = request("GET", f"{relay.admin}/rooms/hall")
    assert answered.status == 200, answered
    found: dict[str, Any] = json.loads(answered.body)
    return found


def silent(relay: Relay) -> dict[bytes, bool]:
    """Of each session of the room, by its id's end."""
    return {one["session"][-8:].encode(): one["silent"] for one in room(relay)["sessions"] if one["publishes"]}


def counted(relay: Relay) -> float:
    page = request("GET", f"{relay.admin}/metrics").body
    lines = [line for line in page.splitlines() if line.startswith("millrace_publishers_silent{")]
    assert len(lines) == 2
    return sum(float(line.rpartition(" ")[2]) for line in lines)


@pytest.mark.parametrize("vanishes", [True, False], ids=["crashes", "hangs"])
async def test_who_sends_is_shown_instead_of_the_first_that_sends_nothing(relay: Relay, vanishes: bool) -> None:
    first, second = Client(relay, "whip", "first", 0), Client(relay, "whip", "other", 1)
    watching = Client(relay, "whep", "watch", 1)
    until_flows(first, watching)
    if vanishes:
        first.answers_requests = False
    await until(lambda: b"other" in watching.is_shown(), second)
    late = Client(relay, "whep", "laterviewer", 0)
    await until(lambda: late.is_shown() == {b"other"}, second)
    assert silent(relay) == {first.session[-8:].encode(): True, second.session[-8:].encode(): False}
    assert [one["silent"] for one in room(relay)["publishers"]] == [True, False]
    asked = request("GET", f"{relay.admin}/sessions/{first.session}")
    assert json.loads(asked.body)["silent"]
    await until(lambda: counted(relay) == 1.0, second)

    # It was there first, and sends again: not at once, but in the end, and then nobody else.
    first.answers_requests = True
    await until(lambda: b"first" in watching.is_shown() and b"first" in late.is_shown(), first, second)
    await until(lambda: counted(relay) == 0.0, first, second)
    for viewer in (watching, late):
        viewer.is_shown()
    await until(lambda: watching.is_shown() == {b"first"}, first, second)


async def test_a_worker_that_dies_brings_no_silent_publisher_back(relay: Relay) -> None:
    first, second = Client(relay, "whip", "first", 0), Client(relay, "whip", "other", 1)
    watching = Client(relay, "whep", "watch", 1)
    until_flows(first, watching)
    await until(lambda: b"other" in watching.is_shown(), second)
    pid = pid_by_slot(relay)[0]
    os.kill(pid, signal.SIGKILL)
    seen: list[bool] = []

    def is_back() -> bool:
        seen.append(silent(relay)[first.session[-8:].encode()])
        return pid_by_slot(relay).get(0, pid) != pid and len(seen) > 20

    await until(is_back, second)
    assert all(seen), "the successor knows it from the session's record"
    watching.is_shown()
    await until(lambda: watching.is_shown() == {b"other"}, second)
