"""Tests that measure time: they run last, with a core or the machine to themselves, and one that fails is tried once
more. It must never know what is measured. Read next: `tests/README.md`, which says what is marked so.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from enum import IntEnum, auto
from pathlib import Path

import pytest

LOCK = Path(__file__).parents[1] / ".quiet.lock"
"""Held alone by a test that has the machine to itself, and shared by all others and by what the Makefile runs beside
them. Next to it lie the locks of the cores.
"""
FAILED = pytest.StashKey[bool]()
AGAIN = pytest.StashKey[bool]()


class Turn(IntEnum):
    """When a test runs."""

    SLOW = auto()
    QUICK = auto()
    """After the slow ones, which would else be waited for at the end."""
    CORE = auto()
    MACHINE = auto()
    """Last: until then nobody waits for it."""


def turn(item: pytest.Item) -> Turn:
    """As its markers say."""
    marker = item.get_closest_marker("timing")
    if marker is not None:
        return Turn.CORE if "cores" in marker.kwargs else Turn.MACHINE
    starts_processes = item.get_closest_marker("system") or item.get_closest_marker("browser")
    return Turn.SLOW if starts_processes else Turn.QUICK


@contextmanager
def room_for(item: pytest.Item) -> Iterator[None]:
    """Waits for what the test would disturb, or be disturbed by; its own time limit does not run yet."""
    with ExitStack() as stack:
        if turn(item) is Turn.CORE:
            take_a_core(stack)
        lock = stack.enter_context(LOCK.open("w"))
        fcntl.flock(lock, fcntl.LOCK_EX if turn(item) is Turn.MACHINE else fcntl.LOCK_SH)
        yield


def take_a_core(stack: ExitStack) -> None:
    """Until the end of the block; of those that take one, as many run at once as there are cores."""
    cores = [stack.enter_context(LOCK.with_suffix(f".{core}").open("w")) for core in os.sched_getaffinity(0)]
    while True:
        for core in cores:
            with suppress(BlockingIOError):
                fcntl.flock(core, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
        time.sleep(0.05)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each in its turn, when all markers are there."""
    items.sort(key=turn)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Runs a test that measures a second time when the first one failed, with a time limit of its own."""
    if item.stash.get(AGAIN, False):
        return (yield)
    with room_for(item):
        done = yield
        if item.stash.get(FAILED, False):
            item.stash[AGAIN] = True
            done = item.ihook.pytest_runtest_protocol(item=item, nextitem=nextitem)
        return done


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Has a first failure count as `rerun`. One in the teardown alone, which measures nothing, is a failure at once."""
    report = yield
    if report.failed and turn(item) >= Turn.CORE and not item.stash.get(AGAIN, False):
        if report.when != "teardown":
            item.stash[FAILED] = True
        if item.stash.get(FAILED, False):
            report.outcome = "rerun"
    return report


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Under which heading it is counted, its letter and its word."""
    if report.outcome != "rerun":
        return None
    return ("", "", "") if report.when == "teardown" else ("rerun", "R", "RERUN")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Shows what was tried again, and why."""
    reports = terminalreporter.getreports("rerun")
    if reports:
        terminalreporter.section(f"{len(reports)} tried a second time")
        for report in reports:
            terminalreporter.write_line(report.nodeid)
            terminalreporter.write_line(report.longreprtext)
            for name, text in report.sections:
                terminalreporter.write_line(f"--- {name}\n{text}")
