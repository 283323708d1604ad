"""What a viewer that only stays costs in memory, and that it comes back. `make bench SCENARIO=idle` says more."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.clients.raw_client import RawClient, request
from tests.system.relay_process import Relay
from tests.system.worker_pids import pid_by_slot

CLIENTS = 100
MOST_KIB = 56
"""Measured: 30. With OpenSSL's connections kept it would be 80."""


def resident_kib(pid: int) -> int:
    """Shared memory that this process has touched counts too."""
    found = re.search(r"^VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


@contextmanager
def viewers(relay: Relay, count: int) -> Iterator[None]:
    """That are connected, and say no more until they leave."""
    with ExitStack() as stack:
        for _ in range(count):
            client = stack.enter_context(RawClient(f"{relay.url}/whep/hall")).post().connect()
            stack.callback(request, "DELETE", client.session_url)
        yield


async def test_an_idle_viewer_costs_little_and_the_next_one_nothing() -> None:
    async with Relay(workers=1, settings={"timeouts.consent_seconds": "600"}) as relay:
        pid = pid_by_slot(relay)[0]
        # Whatever is made once is made now.
        with viewers(relay, 10):
            pass
        before = resident_kib(pid)
        with viewers(relay, CLIENTS):
            first = (resident_kib(pid) - before) / CLIENTS
        left = resident_kib(pid)
        with viewers(relay, CLIENTS):
            second = (resident_kib(pid) - left) / CLIENTS
        print(f"an idle viewer: {first:.1f} KiB, another one after it {second:.1f} KiB")
        assert first < MOST_KIB
        assert second < MOST_KIB / 4
