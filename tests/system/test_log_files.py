"""A log file that takes nothing stops nothing: a named pipe that nobody reads, a full disk. Read next:
`tests/system/test_log_unread.py`, the same of standard error.
"""

import asyncio
import fcntl
import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.system.relay_process import Relay
from tests.system.test_log_unread import dropped, kill_one, open_and_close

ON_A_SMALL_DISK = 'mount -t tmpfs -o size=64k tmpfs "$0" && exec "$@"'


async def until_dropped(relay: Relay) -> None:
    """Has master and workers log, until each has dropped lines. All of it is answered."""
    async with asyncio.timeout(60):
        await kill_one(relay)
        while not (counted := dropped(relay))["master"] or not (counted["0"] or counted["1"]):
            await asyncio.to_thread(open_and_close, relay, 10)
            os.kill(relay.pid, signal.SIGHUP)
            await asyncio.sleep(0.1)
        await kill_one(relay)
        await asyncio.to_thread(open_and_close, relay, 10)


async def test_server_starts_and_goes_on_while_nobody_reads_the_named_pipe_it_logs_to(tmp_path: Path) -> None:
    pipe = tmp_path / "log"
    os.mkfifo(pipe)
    async with Relay(settings={"log.file": f'"{pipe}"'}) as relay:
        reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        begin = os.read(reading, 1 << 20).decode()
        assert "all workers serve" in begin, "lines wait for a reader"
        fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, 4096)
        await until_dropped(relay)
        said = ""
        async with asyncio.timeout(30):
            while "WARNING master" not in said or said.count("were dropped") < 2:
                with suppress(BlockingIOError):
                    said += os.read(reading, 1 << 20).decode()
                await asyncio.sleep(0.02)
        os.close(reading)
        # And once more without a reader.
        await kill_one(relay)
        await asyncio.to_thread(open_and_close, relay, 10)


@dataclass
class OnSmallDisk(Relay):
    """Has a file system of its own at `disk`, which nobody else sees."""

    disk: Path = Path()

    def launcher(self) -> list[str]:
        return ["unshare", "--mount", "sh", "-c", ON_A_SMALL_DISK, str(self.disk)]

    def seen(self, name: str) -> Path:
        """A file there, from outside."""
        return Path(f"/proc/{self.pid}/root{self.disk}/{name}")


def fill(file: int) -> None:
    """Until it raises OSError."""
    while True:
        os.write(file, bytes(4096))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
async def test_server_goes_on_while_the_disk_of_its_log_is_full(tmp_path: Path) -> None:
    settings = {"log.file": f'"{tmp_path / "log"}"'}
    async with OnSmallDisk(settings=settings, disk=tmp_path) as relay:
        filling = os.open(relay.seen("full"), os.O_WRONLY | os.O_CREAT)
        with pytest.raises(OSError, match="No space left"):
            fill(filling)
        await until_dropped(relay)
        os.ftruncate(filling, 0)
        os.close(filling)
        async with asyncio.timeout(30):
            while "WARNING master" not in (said := relay.seen("log").read_text()) or said.count("were dropped") < 2:
                await asyncio.sleep(0.02)
