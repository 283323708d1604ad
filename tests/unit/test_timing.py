"""Who runs beside whom, and who is tried again."""

import os
import threading
from pathlib import Path

import pytest

from tests import timing
from tests.timing import Turn, room_for, turn

pytest_plugins = ["pytester"]

FILE = """
    import pytest
    tries = []

    @pytest.fixture
    def breaks():
        yield
        raise RuntimeError("in the teardown")

    @pytest.mark.timing
    def test_alone():
        tries.append("alone")
        assert tries.count("alone") == 2

    @pytest.mark.timing(cores=1)
    def test_on_a_core():
        tries.append("core")
        assert tries.count("core") == 3

    @pytest.mark.timing
    def test_that_leaves_something(breaks):
        tries.append("leaves")

    @pytest.mark.timing
    def test_without_a_place():
        pytest.skip("as everywhere")

    def test_that_measures_nothing():
        tries.append("nothing")
        assert False

    @pytest.mark.timing
    def test_the_last():
        assert tries == ["nothing", "core", "core", "alone", "alone", "leaves"]
"""


@pytest.fixture(autouse=True)
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those of the run that this is part of."""
    monkeypatch.setattr(timing, "LOCK", tmp_path / "quiet.lock")


def test_who_measures_comes_last_and_is_tried_once_more(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\nmarkers =\n    timing")
    pytester.makepyfile(FILE)
    result = pytester.runpytest_inprocess("-p", "tests.timing", "-p", "no:xdist", "-p", "no:randomly")
    assert result.parseoutcomes() == {"passed": 3, "failed": 2, "errors": 1, "skipped": 1, "rerun": 2}
    result.stdout.fnmatch_lines(["*2 tried a second time*", "*test_on_a_core*", "*test_alone*"])


class Marked:
    """What is asked of a test."""

    def __init__(self, *markers: pytest.MarkDecorator) -> None:
        self._markers = {each.name: each.mark for each in markers}

    def get_closest_marker(self, name: str) -> pytest.Mark | None:
        return self._markers.get(name)


PLAIN = Marked()
SYSTEM = Marked(pytest.mark.system)
CORE = Marked(pytest.mark.system, pytest.mark.timing(cores=1))
ALONE = Marked(pytest.mark.system, pytest.mark.timing)


class Running:
    """One test in a thread: it has its room, or waits for it."""

    def __init__(self, item: Marked) -> None:
        self._item = item
        self.runs, self._ends = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with room_for(self._item):  # type: ignore[arg-type]
            self.runs.set()
            self._ends.wait()

    def end(self) -> None:
        self._ends.set()
        self._thread.join()


@pytest.mark.parametrize(("first", "then"), [(PLAIN, ALONE), (CORE, ALONE), (ALONE, PLAIN), (ALONE, ALONE)])
def test_nothing_runs_beside_a_test_that_has_the_machine(first: Marked, then: Marked) -> None:
    one = Running(first)
    assert one.runs.wait(20)
    other = Running(then)
    assert not other.runs.wait(0.2)
    one.end()
    assert other.runs.wait(20)
    other.end()


def test_there_are_as_many_tests_on_a_core_as_cores_and_others_beside_them() -> None:
    running = [Running(CORE) for _ in os.sched_getaffinity(0)]
    assert all(one.runs.wait(20) for one in running)
    late, plain = Running(CORE), Running(PLAIN)
    assert plain.runs.wait(20)
    assert not late.runs.wait(0.2)
    running.pop().end()
    assert late.runs.wait(20)
    for one in (*running, late, plain):
        one.end()


def test_quick_tests_come_after_the_slow_ones_and_before_those_that_measure() -> None:
    expected = [Turn.SLOW, Turn.QUICK, Turn.CORE, Turn.MACHINE]
    assert [turn(item) for item in (SYSTEM, PLAIN, CORE, ALONE)] == expected == sorted(expected)  # type: ignore[arg-type]
