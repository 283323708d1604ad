"""`make check-systemd`: the unit under a real systemd, hardened as it is, with a call that goes on through all that
can happen to the service. Prints the call's gaps. Read next: `deploy/millrace.service`.
"""

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass

from tests.booted.debian import Machine, booted, install
from tests.clients.aiortc_client import Publisher, Viewer
from tests.system.asking import delete
from tests.system.watched import Watched

URL = "http://127.0.0.1:7880"
TIMES = 3
MOST_SECONDS = 3.0
"""Of a gap. Chromium notices a server that is gone after 6 s."""


@dataclass(frozen=True)
class Act:
    """Something that happens to the service."""

    name: str
    do: Callable[["Service"], object]
    is_restart: bool = False
    """systemd has to start another main process."""
    seconds: float = 0.0
    """Until its effect begins."""


class Service:
    """`millrace.service` in a machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def systemctl(self, *words: str) -> str:
        return self._machine.run("systemctl", *words)

    def shown(self, name: str) -> str:
        return self.systemctl("show", "-p", name, "--value", "millrace")

    def signal_master(self, name: str) -> None:
        self._machine.run("kill", f"-{name}", self.shown("MainPID"))

    def kill_worker(self) -> None:
        worker = self._machine.run("pgrep", "-P", self.shown("MainPID")).split()[0]
        self._machine.run("kill", "-KILL", worker)

    async def until_serves(self) -> None:
        async with asyncio.timeout(30):
            while self.shown("ActiveState") != "active" or "serve" not in self.shown("StatusText"):
                await asyncio.sleep(0.2)


ACTS = (
    Act("a worker is killed", Service.kill_worker),
    Act("the master is killed", lambda service: service.signal_master("KILL"), is_restart=True),
    Act("all is killed", lambda service: service.systemctl("kill", "-s", "KILL", "millrace"), is_restart=True),
    Act("the master hangs", lambda service: service.signal_master("STOP"), is_restart=True, seconds=11),
    Act("systemctl reload", lambda service: service.systemctl("reload", "millrace")),
    Act("SIGUSR2", lambda service: service.signal_master("USR2")),
)


async def check(service: Service) -> None:
    """One call through all acts."""
    async with (
        Publisher(f"{URL}/whip/hall", audio=False) as publisher,
        Viewer(f"{URL}/whep/hall", audio=False) as viewer,
    ):
        await publisher.open()
        await publisher.connected()
        await viewer.open()
        await viewer.until_frames(10)
        watched = Watched(viewer)
        loop = asyncio.get_running_loop()
        for act in ACTS:
            gaps = []
            for _ in range(TIMES):
                service.systemctl("reset-failed", "millrace")
                main = service.shown("MainPID")
                since = loop.time()
                await asyncio.to_thread(act.do, service)
                await asyncio.sleep(act.seconds)
                if act.is_restart:
                    async with asyncio.timeout(30):
                        while service.shown("MainPID") in (main, "0"):
                            await asyncio.sleep(0.1)
                await asyncio.sleep(3)
                await service.until_serves()
                await watched.until_packets(loop.time(), 10)
                gaps.append(watched.gap(since))
                assert (service.shown("MainPID") == main) == (not act.is_restart), act.name
            assert watched.states == [], f"{act.name}: {watched.states}"
            assert max(gaps) < MOST_SECONDS, f"{act.name}: {gaps}"
            print(f"{act.name:24}", *(f"{gap * 1000:6.0f} ms" for gap in gaps), flush=True)
        assert await delete(viewer) == 200


def main() -> None:
    """Exits with 1 and a reason when something is not as the unit promises."""
    print("Installing into a Debian of its own ...", flush=True)
    install()
    with booted() as machine:
        service = Service(machine)
        machine.join_network()
        service.systemctl("start", "millrace")
        journal = machine.run("journalctl", "-u", "millrace", "--no-pager")
        assert "the kernel steers" in journal, journal
        asyncio.run(check(service))
        service.systemctl("stop", "millrace")
        assert service.shown("Result") == "success"
        assert machine.run("pgrep", "-u", "millrace", check=False) == ""
    print("The unit holds.")


if __name__ == "__main__":
    sys.exit(main())
