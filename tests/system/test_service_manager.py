"""The service manager's part, played by a stand-in: it keeps descriptors and hands them to the next start, and it
binds sockets for the first (sd_notify(3), sd_listen_fds(3)). There is no systemd on a machine that only tests.
"""

import asyncio
import mmap
import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress

import aiohttp

from tests.system.asking import counter, delete, patch
from tests.system.relay_process import Relay
from tests.system.test_takeover import SETTINGS
from tests.system.watched import told, watched_call

LAUNCHER = """
import fcntl, os, sys
count, names = len(sys.argv[1].split()), sys.argv[2]
aside = [fcntl.fcntl(int(each), fcntl.F_DUPFD, 1000) for each in sys.argv[1].split()]
for each in sys.argv[1].split():
    os.close(int(each))
for number, each in enumerate(aside):
    os.dup2(each, 3 + number)
    os.close(each)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(count), "LISTEN_FDNAMES": names}
os.execv(sys.argv[3], sys.argv[3:])
"""


class ManagedRelay(Relay):
    """A relay under a service manager."""

    async def __aenter__(self) -> "ManagedRelay":
        self.kept: list[tuple[str, int]] = []
        """Names and descriptors, in order of arrival."""
        self.bound: list[tuple[str, socket.socket]] = []
        self.heard: list[str] = []
        self.notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notified.bind(f"\0millrace-test-{os.getpid()}-{id(self)}")
        self.environment = {"NOTIFY_SOCKET": "@" + self.notified.getsockname()[1:].decode()}
        self._listening = threading.Thread(target=self._listen, daemon=True)
        self._listening.start()
        await super().__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        try:
            await super().__aexit__(*error)
        finally:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
                last.sendto(b"", self.notified.getsockname())
            self._listening.join(5)
            self.notified.close()
            for _, each in self.kept:
                os.close(each)

    def launcher(self) -> list[str]:
        passed = self._passed()
        numbers, names = (" ".join(str(each) for _, each in passed), ":".join(name for name, _ in passed))
        return [sys.executable, "-S", "-c", LAUNCHER, numbers, names]

    def descriptors(self) -> list[int]:
        return [each for _, each in self._passed()]

    def _passed(self) -> list[tuple[str, int]]:
        return [*((name, each.fileno()) for name, each in self.bound), *self.kept]

    def _listen(self) -> None:
        while True:
            text, descriptors, _, _ = socket.recv_fds(self.notified, 4096, 16)
            if not text:
                return
            said = dict(line.split("=", 1) for line in text.decode().split("\n"))
            self.heard += [f"{key}={value}" for key, value in said.items()]
            if "FDSTORE" in said:
                assert said["FDPOLL"] == "0"
                for each in descriptors:
                    if self._has(said["FDNAME"], each):
                        os.close(each)
                    else:
                        self.kept.append((said["FDNAME"], each))
            elif "FDSTOREREMOVE" in said:
                for _, each in (one for one in self.kept if one[0] == said["FDNAME"]):
                    os.close(each)
                self.kept = [one for one in self.kept if one[0] != said["FDNAME"]]
            else:
                # A barrier's: it is heard when all before it is done.
                for each in descriptors:
                    os.close(each)

    def _has(self, name: str, descriptor: int) -> bool:
        """As systemd, which compares what they stand for."""
        return any(one == name and os.path.samestat(os.fstat(each), os.fstat(descriptor)) for one, each in self.kept)


async def test_calls_outlive_everything_when_the_service_manager_keeps_their_memory_and_sockets() -> None:
    async with (
        ManagedRelay(workers=2, settings=SETTINGS) as relay,
        watched_call(relay) as (publisher, viewer, watched),
    ):
        states = list(watched.states)
        names = sorted(name for name, _ in relay.kept)
        assert len(set(names)) == len(names)

        # Its whole group, as systemd does it unless the unit says otherwise.
        killed_at = time.monotonic()
        for pid in relay.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await relay.start()
        await relay.until_ready()
        await watched.until_packets(time.monotonic() + 0.5, 30)
        everything = watched.gap(killed_at)

        # The master alone: its workers go on until the next one is there.
        killed_at = time.monotonic()
        workers = relay.worker_pids()
        await relay.kill_master()
        await relay.start()
        await relay.until_ready()
        await watched.until_packets(time.monotonic() + 0.5, 30)
        print(told("everything killed", [everything]), told("master", [watched.gap(killed_at)]), sep="\n")
        # Cores that an encoder, a decoder and a Python that starts share.
        assert everything < 10
        assert watched.gap(killed_at) < 5
        assert not set(workers) & set(relay.worker_pids())
        assert sorted(name for name, _ in relay.kept) == names
        assert await counter(relay, "millrace_sessions_adopted_total") == 4
        assert await counter(relay, "millrace_sessions_lost_total") == 0
        assert watched.states == states
        assert [await patch(client) for client in (publisher, viewer)] == [204, 204]
        assert [await delete(client) for client in (viewer, publisher)] == [200, 200]
        await relay.stop()
        async with asyncio.timeout(20):
            while relay.kept:
                await asyncio.sleep(0.01)


async def test_a_kept_memory_of_no_use_is_forgotten_and_the_server_starts_anew() -> None:
    async with ManagedRelay(workers=1, settings=SETTINGS) as relay:
        await relay.kill_master()
        arena = dict(relay.kept)["millrace-arena"]
        os.pwrite(arena, b"garbage!", 0)
        before = relay.kept[:]
        await relay.start()
        await relay.until_logged("the stored descriptors are unusable")
        await relay.until_ready()
        assert [name for name, _ in relay.kept] == [name for name, _ in before]
        with mmap.mmap(dict(relay.kept)["millrace-arena"], 8) as kept:
            assert kept[:] == b"MILLRACE"


async def test_sockets_that_the_service_manager_has_bound_are_served() -> None:
    class Activated(ManagedRelay):
        async def start(self) -> None:
            if not self.bound:
                listener = socket.socket()
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                listener.bind(("127.0.0.1", self.http_port))
                listener.listen()
                self.bound = [("http.socket", listener)]
                self.early = asyncio.ensure_future(self.ask())
            await super().start()

        async def ask(self) -> int:
            """Before there is a server."""
            async with aiohttp.ClientSession() as http, http.get(f"{self.url}/") as answer:
                return answer.status

    async with Activated(workers=2) as relay:
        assert await asyncio.wait_for(relay.early, 30) == 200
        for _, listener in relay.bound:
            listener.close()
