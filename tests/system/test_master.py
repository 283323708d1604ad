"""The master as a process: what it says, how it stops, what it does about workers that do not serve.

Most workers here are real ones that are kept from starting by another engine than theirs, so that what is tested is the
master and nothing of the relay.
"""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PORTS = ("http.port=0", "admin.port=0", "media.port=0")
SECONDS = 30.0

BREAKS = "raise ImportError('the engine is broken')"
HANGS = "import time; print('hanging', flush=True); time.sleep(1000)"
IGNORES_SIGTERM = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + HANGS
BEATS = """
import mmap, os, time
from pathlib import Path
from millrace.relay.contract.layout import slot_offsets, write_word

names = {each: os.path.realpath(f"/proc/self/fd/{each}") for each in os.listdir("/proc/self/fd")}
# Mapped by the master, it has two descriptors.
arena = next(int(each) for each, name in names.items() if "millrace-arena" in name)
table = memoryview(mmap.mmap(arena, 1 << 16))
at = slot_offsets(0)
silent = Path(os.environ["TMPDIR"]).with_name("silent")
while True:
    for beat in (at.engine_beat, at.control_beat):
        if beat != (getattr(at, silent.read_text()) if silent.exists() else None):
            write_word(table, beat, time.monotonic_ns() // 1000)
    time.sleep(0.02)
"""
"""Slot 0's two loops as the master sees them; one falls silent when the test names it in a file."""
FINDS_THE_STAND_IN = """
import sys
from importlib.util import spec_from_file_location
from pathlib import Path

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        stand_in = Path(__file__).with_name("stand_in.py")
        return spec_from_file_location(name, stand_in) if name == "millrace.relay._engine" else None

sys.meta_path.insert(0, Finder)
"""


FORKS_NOT = """
import errno, os
from pathlib import Path

fork = os.fork

def forks_unless_forbidden():
    if Path(os.environ["TMPDIR"]).with_name("forbidden").exists():
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return fork()

os.fork = forks_unless_forbidden
"""
"""A limit on processes that is reached while the test says so by a file. A real one does not bind root."""


PINS_NOT = """
import errno, os

def is_refused(process, cores):
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

os.sched_setaffinity = is_refused
"""
"""As where the cores of a container have been exchanged."""


@dataclass
class Master:
    """One `millrace serve` with its output so far."""

    process: subprocess.Popen[bytes]
    output_path: Path
    directory: Path
    """Its system-wide temporary directory."""

    def output(self) -> str:
        return self.output_path.read_text()

    def until(self, condition: Callable[[], object], what: str) -> None:
        end = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < end, f"not within {SECONDS} s: {what}\n{self.output()}"
            time.sleep(0.005)

    def until_said(self, text: str, times: int = 1) -> None:
        self.until(lambda: self.output().count(text) >= times or self.process.poll() is not None, text)
        assert self.output().count(text) >= times, self.output()

    def workers(self) -> list[int]:
        """Its children, zombies included."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def send(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def status(self) -> int:
        return self.process.wait(SECONDS)


@contextmanager
def serving(folder: Path, stand_in: str, *settings: str, workers: int = 2, customize: str = "") -> Iterator[Master]:
    """A master whose workers run `stand_in` in place of an engine's start, their first act. `customize` runs
    in every process before all else.
    """
    modules, temporary = folder / "modules", folder / "tmp"
    modules.mkdir()
    temporary.mkdir()
    engine = "class Engine:\n    def __init__(self, *given):\n" + textwrap.indent(stand_in, " " * 8)
    (modules / "stand_in.py").write_text(engine)
    (modules / "sitecustomize.py").write_text(FINDS_THE_STAND_IN + customize)
    arguments = [part for setting in (*PORTS, *settings) for part in ("--set", setting)]
    environment = os.environ | {"PYTHONPATH": f"{modules}:{ROOT / 'src'}", "TMPDIR": str(temporary)}
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "millrace.master", "serve", "--workers", str(workers), *arguments],
            cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    master = Master(process, folder / "output", temporary)
    try:
        yield master
        assert list(temporary.iterdir()) == [], "nothing is left behind"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stops_with_status_0_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with serving(tmp_path, HANGS) as master:
        master.until_said("worker started", 2)
        workers = master.workers()
        assert len(workers) == 2
        assert len(list(master.directory.iterdir())) == 1, "a runtime directory of its own"
        master.send(number)
        assert master.status() == 0
        assert alive(workers) == []


def test_says_where_the_page_and_the_metrics_are(tmp_path: Path) -> None:
    with serving(tmp_path, HANGS) as master:
        master.until_said("access")
        words = master.output().split()
        assert words[words.index("page") + 1].startswith("http://127.0.0.1:")
        assert words[words.index("metrics") + 1].endswith("/metrics")
        assert "this machine only, without a token" in master.output()
        master.send(signal.SIGTERM)
        assert master.status() == 0


def test_ctrl_c_in_a_terminal_reaches_workers_only_through_the_master(tmp_path: Path) -> None:
    with serving(tmp_path, IGNORES_SIGTERM, "workers.stop_seconds=1") as master:
        master.until_said("hanging", 2)
        workers = master.workers()
        os.killpg(master.process.pid, signal.SIGINT)
        assert master.status() == 0
        # They sleep in Python, which SIGINT would have ended with a traceback.
        assert "KeyboardInterrupt" not in master.output()
        assert master.output().count("it did not end when it was told to") == 2
        assert alive(workers) == []


def test_second_ctrl_c_does_not_wait(tmp_path: Path) -> None:
    with serving(tmp_path, IGNORES_SIGTERM, "workers.stop_seconds=600") as master:
        master.until_said("hanging", 2)
        master.send(signal.SIGINT)
        master.until_said("stopping")
        master.send(signal.SIGINT)
        assert master.status() == 0


@pytest.mark.timing
def test_killed_worker_is_reaped_and_replaced_at_once(tmp_path: Path) -> None:
    with serving(tmp_path, HANGS) as master:
        master.until_said("worker started", 2)
        took = []
        for victim in master.workers():
            others = set(master.workers()) - {victim}
            os.kill(victim, signal.SIGKILL)
            killed_at = time.monotonic()
            master.until(lambda gone=victim: gone not in (now := master.workers()) and len(now) == 2, "a successor")
            took.append(time.monotonic() - killed_at)
            assert others <= set(master.workers())
        # The better of two: a machine may stand still for a moment.
        assert min(took) < 0.5
        master.until_said("was ended by SIGKILL", 2)
        master.send(signal.SIGTERM)
        assert master.status() == 0


def test_many_deaths_at_once_leave_no_zombie(tmp_path: Path) -> None:
    with serving(tmp_path, HANGS, workers=16) as master:
        master.until_said("worker started", 16)
        victims = master.workers()
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        master.until(lambda: len(set(master.workers()) - set(victims)) == 16, "sixteen successors")
        assert alive(victims) == []
        master.send(signal.SIGTERM)
        assert master.status() == 0


def test_workers_that_cannot_start_end_in_a_clear_line_and_status_1(tmp_path: Path) -> None:
    settings = ("workers.crash_limit=3", "workers.respawn_backoff_ms=1")
    with serving(tmp_path, BREAKS, *settings, workers=1) as master:
        assert master.status() == 1
        assert "ImportError: the engine is broken" in master.output()
        assert "the server stops: worker 0 died 3 times in a row soon after its start" in master.output()
        assert master.output().count("worker started") == 3


def test_worker_that_never_beats_is_aborted_with_a_traceback_and_replaced(tmp_path: Path) -> None:
    with serving(tmp_path, HANGS, "workers.boot_seconds=3") as master:
        master.until_said("it has not started within 3 s")
        master.until_said("was ended by SIGABRT")
        master.until_said("worker started", 3)
        master.until_said("Fatal Python error: Aborted")
        master.send(signal.SIGTERM)
        assert master.status() == 0


def test_master_without_a_process_to_be_had_goes_on_and_forks_when_there_is_one(tmp_path: Path) -> None:
    with serving(tmp_path, BEATS, "workers.drain_seconds=0", workers=1, customize=FORKS_NOT) as master:
        master.until_said("all workers serve")
        (tmp_path / "forbidden").touch()
        master.send(signal.SIGUSR2)
        master.until_said("upgrade refused: the new program cannot be tried: Resource temporarily unavailable")
        os.kill(master.workers()[0], signal.SIGKILL)
        master.until_said("next attempt in 0.4 s")
        pauses = [float(each) for each in re.findall(r"next attempt in ([\d.]+) s", master.output())]
        assert pauses[:3] == [0.1, 0.2, 0.4], "no spin"
        assert master.workers() == []
        (tmp_path / "forbidden").unlink()
        master.until_said("incarnation=2")
        master.send(signal.SIGTERM)
        assert master.status() == 0


@pytest.mark.parametrize(("beat", "loop"), [("engine_beat", "engine"), ("control_beat", "control loop")])
def test_worker_with_a_silent_loop_is_aborted_with_a_traceback_and_replaced(
    tmp_path: Path, beat: str, loop: str
) -> None:
    settings = ("workers.beat_seconds=2", "workers.abort_seconds=10", "workers.drain_seconds=0")
    with serving(tmp_path, BEATS, *settings, workers=1) as master:
        master.until_said("all workers serve")
        assert "worker killed" not in master.output()
        (tmp_path / "silent.new").write_text(beat)
        (tmp_path / "silent.new").rename(tmp_path / "silent")
        master.until_said(f"its {loop} has been silent for")
        (tmp_path / "silent").unlink()
        master.until_said("was ended by SIGABRT")
        assert "Fatal Python error: Aborted" in master.output()
        master.until_said("incarnation=2")
        master.send(signal.SIGTERM)
        assert master.status() == 0


def test_workers_that_do_not_come_up_end_when_their_master_is_killed(tmp_path: Path) -> None:
    with serving(tmp_path, HANGS, "workers.boot_seconds=3") as master:
        master.until_said("hanging", 2)
        workers = master.workers()
        master.send(signal.SIGKILL)
        master.until(lambda: not alive(workers), "the workers' end")
        for left in master.directory.iterdir():
            (left / "lock").unlink()
            left.rmdir()


def test_parent_that_ignores_its_children_does_not_blind_the_master(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with serving(tmp_path, HANGS) as master:
        signal.signal(signal.SIGCHLD, before)
        master.until_said("hanging", 2)
        os.kill(master.workers()[0], signal.SIGKILL)
        master.until_said("was ended by SIGKILL")
        master.send(signal.SIGTERM)
        assert master.status() == 0


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_quit_ends_everything_at_once(tmp_path: Path, first: signal.Signals) -> None:
    with serving(tmp_path, BEATS, "workers.stop_seconds=600", "workers.drain_seconds=600", workers=1) as master:
        master.until_said("all workers serve")
        master.send(first)
        master.until_said("draining" if first is signal.SIGTERM else "stopping")
        master.send(signal.SIGQUIT)
        assert master.status() == 0


def test_second_server_on_the_same_ports_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    with serving(tmp_path, HANGS) as first:
        first.until_said("access")
        words = first.output().split()
        port = words[words.index("page") + 1].rstrip("/").rpartition(":")[2]
        workers = first.workers()
        (tmp_path / "second").mkdir()
        with serving(tmp_path / "second", HANGS, f"http.port={port}") as second:
            assert second.status() == 1
            assert f"http.port: 127.0.0.1 port {port} is taken by another program" in second.output()
        assert first.workers() == workers
        first.send(signal.SIGTERM)
        assert first.status() == 0


def test_second_master_in_the_same_runtime_directory_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    setting = f"runtime.directory={tmp_path / 'run'}"
    with serving(tmp_path, HANGS, setting) as first:
        first.until_said("hanging", 2)
        workers = first.workers()
        (tmp_path / "second").mkdir()
        with serving(tmp_path / "second", HANGS, setting) as second:
            assert second.status() == 1
            assert f"is held by process {first.process.pid}: Millrace runs already" in second.output()
        assert first.workers() == workers
        first.send(signal.SIGTERM)
        assert first.status() == 0
    assert not (tmp_path / "run").exists()


def test_workers_are_pinned_to_a_core_each_when_there_are_enough(tmp_path: Path) -> None:
    cores = os.sched_getaffinity(0)
    with serving(tmp_path, HANGS, workers=len(cores)) as master:
        master.until_said("worker started", len(cores))
        master.until(
            lambda: sorted(map(os.sched_getaffinity, master.workers()), key=min) == [{core} for core in sorted(cores)],
            "one core each",
        )
        master.send(signal.SIGTERM)
        assert master.status() == 0


def test_worker_whose_core_is_gone_serves_on_any(tmp_path: Path) -> None:
    with serving(tmp_path, BEATS, "workers.drain_seconds=0", workers=1, customize=PINS_NOT) as master:
        master.until_said("all workers serve")
        assert "is not available: Invalid argument" in master.output()
        assert master.output().count("worker started") == 1
        master.send(signal.SIGTERM)
        assert master.status() == 0


def test_configured_runtime_directory_has_to_be_private(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    with serving(tmp_path, HANGS, f"runtime.directory={shared}") as master:
        assert master.status() == 1
        assert "runtime.directory" in master.output()
        assert "mode 0700" in master.output()


def test_master_has_all_modules_of_workers_and_one_thread_no_loop_and_no_bus(tmp_path: Path) -> None:
    # The engine is the real one: a folder without the stand-in.
    with serving(tmp_path, HANGS, "workers.drain_seconds=0", customize="\nsys.meta_path.pop(0)\n") as master:
        master.until_said("all workers serve")
        process = Path(f"/proc/{master.process.pid}")
        mapped = (process / "maps").read_text()
        assert [name for name in ("zmq", "uvloop", "relay/_engine") if name in mapped] == [
            "zmq",
            "uvloop",
            "relay/_engine",
        ]
        assert len(list((process / "task").iterdir())) == 1
        kinds = {os.readlink(each) for each in (process / "fd").iterdir()}
        assert "anon_inode:[eventpoll]" not in kinds
        master.send(signal.SIGTERM)
        assert master.status() == 0
