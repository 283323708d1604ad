"""A whole relay for a test: master and workers as real processes on ports of their own. It must never know what is
tested. Read next: `tests/system/conftest.py`, which gives it to tests.
"""

import asyncio
import itertools
import os
import signal
import socket
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from millrace.workers.metrics.processes import read_process

ROOT = Path(__file__).parents[2]
START_SECONDS = 30.0
STOP_SECONDS = 15.0


@dataclass
class Relay:
    """One running relay; `async with` starts and stops it."""

    workers: int | None = 2
    """None when the configuration says it."""

    settings: Mapping[str, str] = field(default_factory=dict)
    """Of `--set`; the values are TOML."""

    config: str = ""
    """What stands in its configuration file at the start; `settings` win."""

    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to ours."""

    expected_status: int = 0
    """The master's exit status at the end."""

    root: Path = ROOT
    """Where the program lies."""

    program: Sequence[str] = (sys.executable, "-m", "millrace.master")
    """Started with `serve` and what follows."""

    async def __aenter__(self) -> "Relay":
        self._stack = AsyncExitStack()
        self.runtime = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="millrace-test-")))
        self.http_port, self.admin_port = free_port(socket.SOCK_STREAM), free_port(socket.SOCK_STREAM)
        self.media_port = free_port(socket.SOCK_DGRAM)
        self.log_path = self.runtime.with_name(self.runtime.name + ".log")
        self.log_path.touch()
        self._stack.callback(self.log_path.unlink, missing_ok=True)
        self.config_path = self.runtime.with_name(self.runtime.name + ".toml")
        self.config_path.write_text(self.config)
        self._stack.callback(self.config_path.unlink)
        self._masters: list[int] = []
        try:
            await self.start()
            await self.until_ready()
        except BaseException:
            self._kill_session()
            print(self.log())
            raise
        return self

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        try:
            await self.stop()
        finally:
            self._kill_session()
            if error is not None:
                print(self.log())
            await self._stack.aclose()

    @property
    def url(self) -> str:
        """Of the public side."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def admin(self) -> str:
        """Of the administration side."""
        return f"http://127.0.0.1:{self.admin_port}"

    @property
    def pid(self) -> int:
        """The master's."""
        return self._process.pid

    def launcher(self) -> list[str]:
        """What starts the command, for those who are no plain parent."""
        return []

    def streams(self) -> dict[str, int]:
        """What standard input, output or error is, where it is not nothing and the log's file."""
        return {}

    def descriptors(self) -> list[int]:
        """Those that are passed on."""
        return []

    def log(self) -> str:
        """What all processes have logged so far."""
        return self.log_path.read_text(errors="replace")

    def processes(self) -> list[int]:
        """Every process of the relay that exists, the master's zombies included; those of orphans are the system's."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                # Fields 3, 4 and 6 of proc(5): state, parent, and the session, which a master leads.
                is_the_systems = fields[0] == "Z" and int(fields[1]) not in self._masters
                if int(fields[3]) in self._masters and not is_the_systems:
                    found.append(int(entry.name))
        return sorted(found)

    def worker_pids(self) -> list[int]:
        """Those of the living workers."""
        return [pid for pid in self.processes() if pid != self.pid]

    def cpu_seconds(self) -> float:
        """Processor time of all living processes of the relay."""
        found = [read_process(pid) for pid in self.processes()]
        return sum(process.cpu_seconds for process in found if process is not None)

    async def until_logged(self, text: str, times: int = 1, seconds: float = START_SECONDS) -> None:
        """Waits until it has said so, in all."""
        async with asyncio.timeout(seconds):
            while self.log().count(text) < times:
                await asyncio.sleep(0.01)

    async def until_ready(self, seconds: float = START_SECONDS) -> None:
        """Waits for `/readyz?all`, which speaks for all workers."""
        async with asyncio.timeout(seconds):
            while True:
                if self._process.returncode is not None:
                    raise AssertionError(f"the relay ended with {self._process.returncode}:\n{self.log()}")
                if await asyncio.to_thread(self._is_ready):
                    return
                await asyncio.sleep(0.02)

    async def until_ended(self, seconds: float) -> float:
        """Waits until it has ended by itself; says how long that took."""
        began = asyncio.get_running_loop().time()
        await asyncio.wait_for(self._process.wait(), seconds)
        return asyncio.get_running_loop().time() - began

    async def stop(self) -> None:
        """Stops it as Ctrl-C does, and holds it to leaving nothing behind."""
        if self._process.returncode is None:
            # A terminal sends SIGINT to the whole process group.
            os.killpg(self.pid, signal.SIGINT)
        try:
            status = await asyncio.wait_for(self._process.wait(), STOP_SECONDS)
        except TimeoutError:
            raise AssertionError(f"the relay does not stop; left: {self.processes()}\n{self.log()}") from None
        assert status == self.expected_status, f"exit status {status}:\n{self.log()}"
        assert self.processes() == []
        left = list(self.runtime.iterdir()) if self.runtime.exists() else []
        assert left == [], "socket files are left"

    async def kill_master(self) -> None:
        """Its workers are left alone."""
        os.kill(self.pid, signal.SIGKILL)
        await self._process.wait()

    async def start(self) -> None:
        """A master; another one, when the last was killed."""
        settings = {
            "http.port": str(self.http_port),
            "admin.port": str(self.admin_port),
            "media.port": str(self.media_port),
            "runtime.directory": f'"{self.runtime}"',
            # A machine for tests is busier than one that serves; `test_pressure.py` asks for less.
            "limits.late_ms": "60_000",
            # And may give no time to one core's worker for seconds; `test_hangs.py` asks for the default.
            "workers.beat_seconds": "6",
            **self.settings,
        }
        if self.workers is not None:
            settings["workers.count"] = str(self.workers)
        arguments = [argument for name, value in settings.items() for argument in ("--set", f"{name}={value}")]
        with self.log_path.open("ab") as log:
            streams = {"stdin": asyncio.subprocess.DEVNULL, "stdout": log.fileno(), "stderr": log.fileno()}
            self._process = await asyncio.create_subprocess_exec(
                *self.launcher(), *self.program, "serve",
                *("--config", str(self.config_path), *arguments),
                cwd=self.root, env=os.environ | self.environment, pass_fds=self.descriptors(),
                **(streams | self.streams()), start_new_session=True,
            )  # fmt: skip
        self._masters.append(self._process.pid)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.admin}/readyz?all", timeout=1) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _kill_session(self) -> None:
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)


def _claim() -> tuple[socket.socket, range]:
    """Ports that no other process of tests is given on this machine, and no client by chance: all lie below those that
    the kernel gives out. They are ours for as long as we hold an abstract name, which ends with the process.
    """
    for first in range(12_000, 32_000, BLOCK):
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0millrace-test-ports-{first}")
        except OSError:
            claim.close()
            continue
        return claim, range(first, first + BLOCK)
    raise AssertionError("all ports for tests are taken")


BLOCK = 100
# Here and not at the first use: a test in a network namespace sees no other process's names.
_CLAIM, _OURS = _claim()
_ports = itertools.cycle(_OURS)


def free_port(kind: socket.SocketKind) -> int:
    """A port that nobody has right now, on both families, and that nobody else is given by this."""
    for port in itertools.islice(_ports, BLOCK):
        with socket.socket(socket.AF_INET, kind) as four, socket.socket(socket.AF_INET6, kind) as six:
            try:
                four.bind(("127.0.0.1", port))
                six.bind(("::1", port))
            except OSError:
                continue
            return port
    raise AssertionError("all of this process's ports are taken")
