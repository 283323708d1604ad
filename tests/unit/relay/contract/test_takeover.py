"""What a master leaves: its manifest, and what another program makes of it."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from millrace.master.slots import Life
from millrace.master.start.prepare import Passed, inherit, make, prepare
from millrace.master.takeover.locks import holder
from millrace.master.takeover.predecessor import (
    Inherited,
    NotInheritable,
    TakeoverRefused,
    close,
    from_orphans,
    parse_inherited,
)
from millrace.master.takeover.runtime_directory import Runtime, claim, default_directory, leave, living
from millrace.relay.config.model import ArenaConfig, Config
from millrace.relay.config.parse import parse
from millrace.relay.contract.takeover import (
    FIXED_AT_START,
    Manifest,
    SocketGroup,
    Unreadable,
    fixed_at_start,
    unpack,
    with_inherited,
)
from tests.unit.master.takeover.test_locks import child_that_locks

SETTINGS = ("http.port=0", "admin.port=0", "media.port=0", "workers.count=2", "media.steering=handover")


def config(*settings: str) -> Config:
    parsed = parse("", [*SETTINGS, *settings])
    assert isinstance(parsed, Config)
    return parsed


def manifest() -> Manifest:
    return Manifest(
        slots=2,
        count=2,
        groups=(SocketGroup("http", "::1", 7880), SocketGroup("media", "127.0.0.1", 7882)),
        is_steered=True,
        has_takeover_socket=True,
        directory="/run/millrace",
        is_ours=False,
        fixed=fixed_at_start(config()),
        certificate_pem="certificate",
        private_key_pem="key",
        fingerprint="sha-256 AB",
        started_at=1.5,
    )


def test_a_manifest_is_read_as_it_was_written() -> None:
    read = unpack(manifest().pack())
    assert read == replace(manifest(), fixed=json.loads(json.dumps(fixed_at_start(config()))))
    names = list(read.names())
    assert names[:7] == ["manifest", "lock", "arena", "doorbell-0", "doorbell-1", "heirs", "flow-map"]
    assert names[7:] == ["places", "http-0-0", "http-0-1", "media-1-0", "media-1-1"]


@pytest.mark.parametrize("contract", ["estate", "arena", "facts", "kept"])
def test_another_version_of_a_contract_is_refused_by_name(contract: str) -> None:
    content = json.loads(manifest().pack())
    content["contracts"][contract] += 1
    with pytest.raises(Unreadable, match=f"`{contract}`"):
        unpack(json.dumps(content).encode())


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"{}", b'{"contracts": {}}', b"\xff"])
def test_what_is_no_manifest_is_refused(text: bytes) -> None:
    with pytest.raises(Unreadable):
        unpack(text)


def test_a_manifest_that_lacks_a_key_is_refused() -> None:
    content = json.loads(manifest().pack())
    del content["baked"]["http.port"]
    with pytest.raises(Unreadable, match=r"http\.port"):
        unpack(json.dumps(content).encode())


def test_what_is_inherited_holds_and_what_differs_is_named() -> None:
    wanted = config("http.port=9000", 'http.bind=["127.0.0.1"]', "arena.log_packets=64", "log.level=debug")
    settled, deferred = with_inherited(wanted, unpack(manifest().pack()))
    assert deferred == ("http.bind", "http.port", "arena.log_packets")
    assert settled == config("log.level=debug")
    assert with_inherited(config(), unpack(manifest().pack())) == (config(), ())


def test_every_key_of_the_arena_is_baked() -> None:
    assert {f"arena.{name}" for name in ArenaConfig.__slots__} <= set(FIXED_AT_START)


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    made = claim(config(f'runtime.directory="{tmp_path / "run"}"'))
    yield made
    leave(made)


def copies(inherited: Inherited) -> list[int]:
    """As another process has them."""
    return [os.dup(each) for each in inherited.descriptors]


def test_what_is_inherited_is_understood_by_the_same_program(runtime: Runtime) -> None:
    prepared = make(config(), runtime)
    inherited = parse_inherited(copies(prepared.inherited))
    by_name = inherited.by_name()
    port = prepared.sockets.media[0].port
    number = next(at for at, group in enumerate(inherited.manifest.groups) if group.section == "media")
    with socket.socket(fileno=os.dup(by_name[f"media-{number}-1"])) as member:
        assert member.getsockname()[:2] == ("127.0.0.1", port)
    assert os.path.samestat(os.fstat(by_name["arena"]), os.fstat(prepared.arena.fd))


def test_what_is_inherited_with_another_arena_or_too_little_is_refused(runtime: Runtime) -> None:
    prepared = make(config(), runtime)
    with pytest.raises(NotInheritable, match="descriptors"):
        parse_inherited(copies(prepared.inherited)[:-1])
    os.pwrite(prepared.arena.fd, b"garbage!", 0)
    with pytest.raises(NotInheritable, match="layout"):
        parse_inherited(copies(prepared.inherited))
    with pytest.raises(NotInheritable):
        parse_inherited([])


@pytest.mark.parametrize(
    ("then", "now", "goal"),
    [
        ("workers.count=2", "workers.count=2", 1),
        ("workers.count=2", "workers.count=3", 3),
        ("workers.count=2", "workers.count=0", len(os.sched_getaffinity(0))),
    ],
)
def test_an_heir_goes_on_with_as_many_workers_as_there_were_but_for_another_wish(
    runtime: Runtime, then: str, now: str, goal: int
) -> None:
    left = make(config(then), runtime)
    assert left.goal == 2
    # One was told to leave.
    left.arena.write(Life(1, incarnation=1, is_wanted=False))
    assert inherit(config(now), parse_inherited(copies(left.inherited))).goal == goal


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


def test_the_lock_outlives_what_is_inherited_and_let_go(runtime: Runtime) -> None:
    prepared = make(config(), runtime)
    close(copies(prepared.inherited), runtime.lock)
    assert os.waitstatus_to_exitcode(os.waitpid(child_that_asks(runtime.lock), 0)[1]) == 0


def child_that_asks(lock: int) -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(0 if holder(lock, 0) == os.getppid() else 1)
    return pid


def test_a_configuration_that_contradicts_what_is_left_is_refused_and_leaves_the_workers_alone(tmp_path: Path) -> None:
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


def test_nothing_is_found_where_nobody_lives(runtime: Runtime) -> None:
    assert from_orphans(runtime) is None


def test_the_default_directory_follows_the_listening_addresses() -> None:
    ports = ("http.port=7880", "media.port=7882", "admin.port=6789")
    assert default_directory(config()) is None, "nobody knows the ports"
    first = default_directory(config(*ports))
    assert first == default_directory(config(*ports, "log.level=debug"))
    assert first != default_directory(config(*ports, "media.port=7883"))
