"""What is made or inherited before the first worker."""

import os
import resource
import signal
import socket
from pathlib import Path

import pytest

from millrace.master.kernel.sockets import BindRefused
from millrace.master.life import Life
from millrace.master.start.descriptors import check_descriptors
from millrace.master.start.prepare import Passed, inherit, make, prepare
from millrace.master.takeover.predecessor import (
    TakeoverRefused,
    parse_inherited,
)
from millrace.master.takeover.runtime_directory import Runtime, claim, leave, living
from millrace.relay.config.model import Config
from tests.unit.master.takeover.test_locks import child_that_locks
from tests.unit.master.takeover_kit import config, copies


@pytest.mark.parametrize(
    ("then", "now", "goal"),
    [
        ("workers.count=2", "workers.count=2", 1),
        ("workers.count=2", "workers.count=3", 3),
        ("workers.count=2", "workers.count=0", len(os.sched_getaffinity(0))),
    ],
)
def test_the_next_master_goes_on_with_as_many_workers_unless_another_number_is_configured(
    runtime: Runtime, then: str, now: str, goal: int
) -> None:
    first = make(config(then), runtime)
    assert first.goal == 2
    # One was told to leave.
    first.arena.write(Life(1, incarnation=1, is_wanted=False))
    assert inherit(config(now), parse_inherited(copies(first.inherited))).goal == goal


def test_there_is_room_for_a_worker_on_each_core_and_clients_go_to_those_that_are_wanted(runtime: Runtime) -> None:
    prepared = make(config("workers.count=1"), runtime)
    cores = len(os.sched_getaffinity(0))
    assert (prepared.slots, prepared.goal, prepared.arena.wanted(cores)) == (cores, 1, 1)
    assert make(config(f"workers.count={min(cores + 2, 64)}"), runtime).slots == min(cores + 2, 64)
    group = prepared.sockets.http[0]
    clients = [socket.create_connection((group.address, group.port), timeout=5) for _ in range(32)]
    taken = [group.members[0].accept()[0] for _ in clients]
    for each in (*clients, *taken):
        each.close()


def test_a_single_worker_serves_on_sockets_that_are_not_shared(runtime: Runtime) -> None:
    activated = socket.socket()
    activated.bind(("127.0.0.1", 0))
    port = activated.getsockname()[1]
    settings = (f"http.port={port}", 'http.bind=["127.0.0.1"]', "workers.count=1")
    assert make(config(*settings), runtime, [activated]).slots == 1


def test_a_configuration_that_contradicts_what_is_inherited_is_refused_and_leaves_the_workers_alone(
    tmp_path: Path,
) -> None:
    setting = f'runtime.directory="{tmp_path / "run"}"'
    small = config(setting, "arena.sessions_per_slot=64", "limits.sessions_per_worker=64")
    runtime = claim(small)
    inherited = parse_inherited(copies(make(small, runtime).inherited))
    worker = child_that_locks(runtime.lock, 1)
    try:
        with (
            pytest.raises(TakeoverRefused, match=r"limits\.sessions_per_worker"),
            prepare(config(setting), Passed((), inherited)),
        ):
            pass
        assert living(runtime.lock) == [0]
        assert {path.name for path in runtime.directory.iterdir()} == {"heirs", "lock"}, "another try may find them"
    finally:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
    leave(runtime)


@pytest.mark.parametrize(("most", "is_enough"), [(40, False), (64, False), (100, False), (1024, True), (-1, True)])
def test_a_start_without_the_descriptors_that_it_needs_is_refused_with_the_limit(
    monkeypatch: pytest.MonkeyPatch, most: int, is_enough: bool
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (most, most))
    if is_enough:
        check_descriptors(Config(), 2, 2)
        return
    with pytest.raises(
        BindRefused, match=f"open files: found a hard limit of {most}, expected 1.. or more: .*LimitNOFILE"
    ):
        check_descriptors(Config(), 2, 2)
