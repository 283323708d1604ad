"""The kept release's program gives its place to this tree's, and takes it back, while a call goes on. This tree may say
what the kept release says; so a third program says more in every contract, as a release that is still to come might.
"""

import asyncio
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.clients.aiortc_client import Publisher, Viewer
from tests.system.asking import delete, metrics, patch
from tests.system.relay_process import ROOT, Relay
from tests.system.releases import Installation, copy_of, hold_workers, kept_release, make_later
from tests.system.watched import Watched, watched_call

# The kept release's engine is compiled first, should nobody have done so.
pytestmark = pytest.mark.timeout(900)

SETTINGS = {
    "workers.quick_death_seconds": "1",
    # While a rollout is held the master sees nobody serve.
    "workers.boot_seconds": "300",
}
RELEASE, TREE, LATER = "release", "tree", "later"
MOST_SKIPPED = 5_000
"""Packets that a viewer may miss in one stretch, in a call that goes on. A numbering that begins anew is off by more in
six cases of seven, for each stream.
"""


class Programs:
    """Copies of all three, whose workers wait while there is a gate, and a folder in which one is installed."""

    def __init__(self, folder: Path) -> None:
        self.gate = folder / "gate"
        self.by_name = {
            RELEASE: copy_of(kept_release(), folder / RELEASE),
            TREE: copy_of(ROOT / "src", folder / TREE),
            LATER: copy_of(ROOT / "src", folder / LATER),
        }
        make_later(self.by_name[LATER])
        for program in self.by_name.values():
            hold_workers(program, self.gate)
        self.installed = Installation(folder / "installed")

    def install(self, name: str) -> None:
        """From now on this one starts."""
        self.installed.put(self.by_name[name])

    def of_workers(self, relay: Relay) -> list[str]:
        """The program of each living worker, in alphabetical order, by the engine that it has loaded."""
        found = []
        for pid in relay.worker_pids():
            try:
                maps = Path(f"/proc/{pid}/maps").read_text()
            except OSError:  # It has ended meanwhile.
                continue
            found += [name for name, program in self.by_name.items() if f"{program}/millrace/relay/_engine" in maps]
        return sorted(found)


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(tmp_path)


class Call:
    """A publisher on worker 0 and its viewer on worker 1, who are not to notice anything."""

    def __init__(self, publisher: Publisher, viewer: Viewer, watched: Watched) -> None:
        self.publisher, self.viewer, self._watched = publisher, viewer, watched
        self._states, self._urls = list(watched.states), (publisher.session_url, viewer.session_url)
        self._streams = {ssrc for ssrc, _ in watched.packets}

    async def goes_on(self) -> None:
        """Has it that new packets come, by the connection and with the numbers that there were."""
        await self._watched.until_packets(time.monotonic(), 30, 60)
        assert self._watched.states == self._states
        assert (self.publisher.session_url, self.viewer.session_url) == self._urls
        assert {ssrc for ssrc, _ in self._watched.packets} == self._streams
        for stream in self._streams:
            numbers = [number for ssrc, number in self._watched.packets if ssrc == stream]
            steps = ((after - before) % 2**16 for before, after in itertools.pairwise(numbers))
            assert all(step < MOST_SKIPPED or step > 2**16 - MOST_SKIPPED for step in steps)
        # Requests reach any worker, and go from one to the other.
        for _ in range(4):
            assert [await patch(client) for client in (self.publisher, self.viewer)] == [204, 204]

    async def ends(self) -> None:
        """Ends it as its clients do."""
        assert [await delete(client) for client in (self.viewer, self.publisher)] == [200, 200]


@asynccontextmanager
async def call_on(programs: Programs, name: str) -> AsyncIterator[tuple[Relay, Call]]:
    """A relay of this program, and a call through it."""
    programs.install(name)
    async with (
        Relay(workers=2, settings=SETTINGS, root=programs.installed.folder) as relay,
        watched_call(relay) as made,
    ):
        call = Call(*made)
        await call.goes_on()
        yield relay, call


async def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def until_all_run(relay: Relay, programs: Programs, name: str) -> None:
    await until(lambda: programs.of_workers(relay) == [name, name])
    await relay.until_ready(120)


async def upgrade(relay: Relay, programs: Programs, name: str) -> None:
    programs.install(name)
    os.kill(relay.pid, signal.SIGUSR2)
    await until_all_run(relay, programs, name)


@asynccontextmanager
async def half_an_upgrade(relay: Relay, programs: Programs, name: str) -> AsyncIterator[None]:
    """One worker is of the new program, and one of the old, until this ends."""
    before = set(relay.worker_pids())
    programs.gate.touch()
    programs.install(name)
    os.kill(relay.pid, signal.SIGUSR2)
    # The rehearsal is a child, too, but while it lives nobody has ended.
    await until(lambda: len(before & set(relay.worker_pids())) == 1 and len(relay.worker_pids()) == 2)
    os.kill(relay.pid, signal.SIGSTOP)
    try:
        programs.gate.unlink()
        await until(lambda: name in programs.of_workers(relay))
        yield
        assert len(set(programs.of_workers(relay))) == 2
    finally:
        os.kill(relay.pid, signal.SIGCONT)
    await until_all_run(relay, programs, name)


async def watch_across(relay: Relay) -> None:
    """A viewer on each worker sees a publisher on the other."""
    for slot in (0, 1):
        async with (
            Publisher(f"{relay.url}/whip/room-{slot}", audio=False) as publisher,
            Viewer(f"{relay.url}/whep/room-{slot}", audio=False) as viewer,
        ):
            await publisher.open(slot)
            await publisher.connected()
            await viewer.open(1 - slot)
            await viewer.until_frames(10, 60)
            assert [await patch(client) for client in (publisher, viewer) * 2] == [204] * 4
            assert [await delete(client) for client in (viewer, publisher)] == [200, 200]


def of_slot(relay: Relay, name: str, slot: int, contract: str = "") -> float:
    label = f'contract="{contract}",' if contract else ""
    return metrics(relay)[f'millrace_{name}_total{{{label}slot="{slot}"}}']


async def hears_more_than_it_knows(relay: Relay, slot: int) -> None:
    """The slot's worker skips what the other one says, and asks for no snapshot because of it."""

    def skipped(contract: str) -> float:
        return of_slot(relay, "messages_unknown", slot, contract)

    await until(lambda: skipped("facts") > 0 and skipped("calls") > 0)
    asked, facts = of_slot(relay, "snapshots_asked", slot), skipped("facts")
    await until(lambda: skipped("facts") >= facts + 5)
    assert of_slot(relay, "snapshots_asked", slot) == asked
    assert of_slot(relay, "bus_unreadable_fact", slot) == of_slot(relay, "bus_unreadable_call", slot) == 0


async def nobody_was_lost(relay: Relay) -> None:
    lost = metrics(relay)
    assert lost["millrace_sessions_lost_total"] == 0
    assert {n for name, n in lost.items() if name.startswith("millrace_sessions_given_up_total")} <= {0}


@pytest.mark.parametrize("other", [TREE, LATER])
async def test_a_call_goes_on_while_its_programs_are_of_two_releases_worker_by_worker(
    programs: Programs, other: str
) -> None:
    async with call_on(programs, RELEASE) as (relay, call):
        master = relay.pid
        async with half_an_upgrade(relay, programs, other):
            await call.goes_on()
            await watch_across(relay)
            if other == LATER:
                # Worker 0 is replaced first.
                await hears_more_than_it_knows(relay, 1)
        await call.goes_on()
        async with half_an_upgrade(relay, programs, RELEASE):
            await call.goes_on()
            await watch_across(relay)
            if other == LATER:
                await hears_more_than_it_knows(relay, 0)
        await call.goes_on()
        await watch_across(relay)
        assert relay.pid == master
        await nobody_was_lost(relay)
        await call.ends()


async def test_what_a_later_release_has_made_more_of_comes_back_to_it(programs: Programs) -> None:
    async with call_on(programs, LATER) as (relay, call):
        for name in (RELEASE, LATER, TREE, LATER):
            await upgrade(relay, programs, name)
            await call.goes_on()
        # A manifest that names a descriptor of its own has it, or it would not have been taken up.
        assert relay.log().count("descriptors of another release are kept open for it: mood") >= 2
        await nobody_was_lost(relay)
        await call.ends()


@pytest.mark.parametrize("other", [TREE, LATER])
async def test_another_release_takes_over_from_a_master_that_was_killed(programs: Programs, other: str) -> None:
    async with call_on(programs, RELEASE) as (relay, call):
        for name in (other, RELEASE):
            await relay.kill_master()
            await call.goes_on()
            programs.install(name)
            await relay.start()
            await until_all_run(relay, programs, name)
            await call.goes_on()
        await nobody_was_lost(relay)
        await call.ends()
