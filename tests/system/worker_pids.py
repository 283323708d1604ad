"""Which process a worker is, and when one is gone. Read next: `tests/system/relay_process.py`."""

import asyncio
from pathlib import Path

from tests.system.relay_process import Relay


def pid_by_slot(relay: Relay) -> dict[int, int]:
    """From the log: the last start of each slot."""
    found = {}
    for line in relay.log().splitlines():
        if "worker started" in line:
            fields = dict(word.split("=") for word in line.split() if "=" in word)
            found[int(fields["slot"])] = int(fields["pid"])
    return found


async def until_gone(pid: int, seconds: float) -> None:
    """Reaped, not only dead: a zombie still has its entry."""
    async with asyncio.timeout(seconds):
        while Path(f"/proc/{pid}").exists():
            await asyncio.sleep(0.002)
