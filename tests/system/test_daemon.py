"""The server as a Unix daemon: pid file, status of the start, reload, rotated logs, what the service manager hears."""

import asyncio
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.aiortc_client import Publisher
from tests.system.relay_process import free_port

ROOT = Path(__file__).parents[2]
SECONDS = 30.0


@dataclass
class Place:
    """A folder with a configuration, and the daemon that may run on it."""

    folder: Path
    admin_port: int

    @property
    def pid_file(self) -> Path:
        return self.folder / "millrace.pid"

    @property
    def log(self) -> Path:
        return self.folder / "millrace.log"

    def configure(self, level: str = "info", more: str = "", http_port: int = 0) -> None:
        (self.folder / "millrace.toml").write_text(
            f"[http]\nport = {http_port}\n[media]\nport = 0\n[admin]\nport = {self.admin_port}\n"
            # A worker may get no time for seconds where tests run.
            f'[log]\nlevel = "{level}"\nfile = "{self.log}"\n[workers]\nbeat_seconds = 6\n{more}\n'
        )

    def serve(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        paths = {"PYTHONPATH": str(ROOT / "src"), "TMPDIR": str(self.folder)}
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "millrace.master", "serve", "--config", "millrace.toml"),
                *("--workers", "2", *arguments),
            ],
            cwd=self.folder, env=os.environ | paths | environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def daemon(self) -> subprocess.CompletedProcess[str]:
        with self.serve("--daemon", "--pid-file", "millrace.pid") as process:
            out, err = process.communicate(timeout=SECONDS)
            return subprocess.CompletedProcess([], process.returncode, out, err)

    @property
    def pid(self) -> int:
        return int(self.pid_file.read_text())

    def workers(self) -> list[int]:
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def is_ready(self) -> bool:
        """As it says itself. It is asked again when that took too long, or when a worker has got no time to beat."""
        for _ in range(5):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/readyz?all", timeout=5) as answer:
                    return bool(answer.status == 200)
            except urllib.error.HTTPError as error:
                if b"does not beat" not in error.read():
                    return False
                time.sleep(0.2)
            except OSError as error:
                if not isinstance(getattr(error, "reason", error), TimeoutError):
                    return False
        return False


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.01)


@contextmanager
def ended(place: Place) -> Iterator[None]:
    """Ends the daemon, and holds it to leaving nothing."""
    pid = place.pid
    processes = [pid, *place.workers()]
    try:
        yield
        os.kill(pid, signal.SIGTERM)
        until(lambda: not any(Path(f"/proc/{each}").exists() for each in processes), "the daemon's end")
        assert not place.pid_file.exists()
    finally:
        for each in processes:
            if Path(f"/proc/{each}").exists():
                os.kill(each, signal.SIGKILL)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path, free_port(socket.SOCK_STREAM))
    made.configure()
    return made


def test_daemon_returns_when_all_workers_serve_and_holds_its_pid_file(place: Place) -> None:
    started = place.daemon()
    assert started.returncode == 0, started.stderr + place.log.read_text()
    assert "Millrace serves with 2 workers" in started.stdout
    with ended(place):
        assert place.is_ready()
        process = Path(f"/proc/{place.pid}")
        fields = process.joinpath("stat").read_text().rpartition(")")[2].split()
        assert fields[4] == "0", "no terminal"
        assert int(fields[3]) != place.pid, "not its session's leader, so it never gets one"
        assert process.joinpath("cwd").readlink() == Path("/")
        assert process.joinpath("fd/0").readlink() == Path(os.devnull)
        assert process.joinpath("fd/2").readlink() == place.log
        with place.pid_file.open("r+") as file, pytest.raises(BlockingIOError):
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        second = place.daemon()
        assert second.returncode == 1
        assert f"is held by process {place.pid}" in second.stderr
        assert place.is_ready()


def test_daemon_that_cannot_start_says_why_and_fails(place: Place) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        place.configure(http_port=taken.getsockname()[1])
        failed = place.daemon()
    assert failed.returncode == 1
    assert "is taken by another program" in failed.stderr
    assert not place.pid_file.exists()


def test_pid_file_of_a_killed_server_is_taken_over(place: Place) -> None:
    place.pid_file.write_text("1\n")
    assert place.daemon().returncode == 0
    with ended(place):
        assert place.pid != 1


def test_daemon_refuses_paths_that_depend_on_where_it_was_started(place: Place) -> None:
    place.configure(more='[runtime]\ndirectory = "here"')
    refused = place.daemon()
    assert refused.returncode == 1
    assert "runtime.directory: here has to be an absolute path" in refused.stderr


def test_hangup_applies_the_log_level_and_names_what_waits(place: Place) -> None:
    assert place.daemon().returncode == 0
    with ended(place):
        workers = place.workers()
        place.configure(level="debug", more="[arena]\nlog_packets = 512")
        os.kill(place.pid, signal.SIGHUP)
        until(lambda: "these keys wait for the next start: arena.log_packets" in place.log.read_text(), "said")
        assert "applied=log.level" in place.log.read_text()
        place.configure(level="loud")
        os.kill(place.pid, signal.SIGHUP)
        until(lambda: "is refused and the old one stays" in place.log.read_text(), "said")
        assert "log.level" in [line for line in place.log.read_text().splitlines() if "is refused" in line][-1]
        assert place.workers() == workers
        assert place.is_ready()


async def test_workers_take_the_new_log_level_without_being_replaced(place: Place) -> None:
    port = free_port(socket.SOCK_STREAM)
    place.configure(level="error", http_port=port)
    assert place.daemon().returncode == 0
    with ended(place):
        workers = place.workers()
        async with Publisher(f"http://127.0.0.1:{port}/whip/hall") as publisher:
            await publisher.open()
        assert "session opened" not in place.log.read_text()
        place.configure(level="info", http_port=port)
        os.kill(place.pid, signal.SIGHUP)
        async with asyncio.timeout(20):
            while "session opened" not in place.log.read_text():
                async with Publisher(f"http://127.0.0.1:{port}/whip/hall") as publisher:
                    await publisher.open()
        assert place.workers() == workers


def test_rotated_log_is_let_go_by_all_processes(place: Place) -> None:
    assert place.daemon().returncode == 0
    with ended(place):
        until(place.is_ready, "ready")
        rotated = place.log.with_suffix(".1")
        place.log.rename(rotated)
        os.kill(place.pid, signal.SIGUSR1)

        def holders() -> list[str]:
            links = [each for pid in [place.pid, *place.workers()] for each in Path(f"/proc/{pid}/fd").iterdir()]
            return [str(link) for link in links if link.is_symlink() and link.readlink() == rotated]

        until(lambda: place.log.exists() and not holders(), "nobody holds the old file")
        os.kill(place.pid, signal.SIGHUP)
        until(lambda: "configuration reloaded" in place.log.read_text(), "logged into the new one")


def test_log_that_cannot_be_opened_after_its_rotation_ends_nobody(place: Place) -> None:
    folder = place.folder / "logs"
    folder.mkdir()
    text = (place.folder / "millrace.toml").read_text()
    (place.folder / "millrace.toml").write_text(text.replace(str(place.log), str(folder / "millrace.log")))
    assert place.daemon().returncode == 0
    with ended(place):
        until(place.is_ready, "ready")
        workers = place.workers()
        gone = folder.rename(place.folder / "gone")
        old, new = gone / "millrace.log", folder / "millrace.log"
        os.kill(place.pid, signal.SIGUSR1)
        until(lambda: old.read_text().count("cannot be opened anew") == 3, "the master and both workers say so")
        os.kill(workers[0], signal.SIGKILL)
        until(lambda: place.is_ready() and workers[0] not in place.workers(), "another worker")
        assert workers[1] in place.workers()
        folder.mkdir()
        os.kill(place.pid, signal.SIGUSR1)
        until(new.exists, "opened again")
        os.kill(place.pid, signal.SIGHUP)
        until(lambda: "configuration reloaded" in new.read_text(), "logged into the new one")
        assert old.read_text().count("cannot be opened anew") == 3


def test_upgraded_daemon_keeps_its_number_its_pid_file_and_its_place(place: Place) -> None:
    assert place.daemon().returncode == 0
    with ended(place):
        pid, workers = place.pid, place.workers()
        os.kill(pid, signal.SIGUSR2)
        until(
            lambda: place.log.read_text().count("all workers have the new configuration") == 1,
            "all are the new program's",
        )
        assert place.pid == pid
        assert not set(workers) & set(place.workers())
        assert place.is_ready()
        assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
        with place.pid_file.open("r+") as file, pytest.raises(BlockingIOError):
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        place.configure(level="loud")
        os.kill(pid, signal.SIGUSR2)
        until(lambda: "upgrade refused: the new program does not start" in place.log.read_text(), "said")
        assert "log.level: found" in place.log.read_text()
        place.configure()
        os.kill(pid, signal.SIGUSR2)
        until(lambda: place.log.read_text().count("all workers have the new configuration") == 2, "again")
        assert len(list(Path(f"/proc/{pid}/fd").iterdir())) == descriptors


def test_service_manager_hears_the_life_of_the_server(place: Place) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(place.folder / "notify"))
        manager.settimeout(SECONDS)
        heard: list[str] = []

        def until_heard(line: str) -> None:
            while line not in heard:
                heard.extend(manager.recv(4096).decode().split("\n"))

        address = manager.getsockname()
        with place.serve(NOTIFY_SOCKET=address, WATCHDOG_USEC="2000000") as process:
            try:
                until_heard("READY=1")
                assert "STATUS=2 workers serve" in heard
                assert place.is_ready()
                until_heard("WATCHDOG=1")
                heard.clear()
                process.send_signal(signal.SIGHUP)
                until_heard("RELOADING=1")
                until_heard("READY=1")
                heard.clear()
                process.send_signal(signal.SIGUSR2)
                until_heard("RELOADING=1")
                until_heard("READY=1")
                until_heard("WATCHDOG=1")
                process.send_signal(signal.SIGTERM)
                until_heard("STOPPING=1")
                assert process.wait(SECONDS) == 0
            finally:
                process.kill()


def test_json_log_file_has_one_object_a_line_from_every_process(place: Place) -> None:
    place.log.unlink(missing_ok=True)
    place.configure(level="debug")
    with place.serve("--set", "log.format=json") as process:
        try:
            until(place.is_ready, "ready")
            process.send_signal(signal.SIGINT)
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()
    assert {json.loads(line)["process"] for line in place.log.read_text().splitlines()} >= {"master"}
