"""What another program makes of inherited descriptors."""

import os
import socket
from dataclasses import replace

import pytest

from millrace.master.start.prepare import inherit, make
from millrace.master.takeover.locks import holder
from millrace.master.takeover.predecessor import (
    NotInheritable,
    close,
    from_fdstore,
    from_orphans,
    parse_inherited,
)
from millrace.master.takeover.runtime_directory import Runtime
from millrace.relay.contract.takeover import SocketGroup
from tests.unit.master.takeover_kit import config, copies


def test_what_is_inherited_is_understood_by_the_same_program(runtime: Runtime) -> None:
    prepared = make(config(), runtime)
    inherited = parse_inherited(copies(prepared.inherited))
    by_name = inherited.by_name()
    port = prepared.sockets.media[0].port
    number = next(at for at, group in enumerate(inherited.manifest.groups) if group.section == "media")
    with socket.socket(fileno=os.dup(by_name[f"media-{number}-1"])) as member:
        assert member.getsockname()[:2] == ("127.0.0.1", port)
    assert os.path.samestat(os.fstat(by_name["arena"]), os.fstat(prepared.arena.fd))


def test_what_only_a_later_release_knows_is_passed_on_and_used_by_nobody(runtime: Runtime) -> None:
    prepared = make(config(), runtime)
    manifest = prepared.inherited.manifest
    theirs = tuple(socket.socketpair()[0].detach() for _ in range(3))
    later = replace(
        manifest,
        groups=(*manifest.groups, SocketGroup("later", "127.0.0.1", 1)),
        descriptors=(*manifest.names(), "later-map", *(f"later-{len(manifest.groups)}-{slot}" for slot in range(2))),
    )
    os.pwrite(prepared.inherited.descriptors[0], later.pack(), 0)
    estate = parse_inherited([*copies(prepared.inherited), *theirs])
    inherited = inherit(config(), estate)
    assert estate.manifest.foreign_names() == list(later.descriptors[-3:])
    assert estate.by_name()["later-map"] == theirs[0]
    assert inherited.child(0, 1).boot.inherited[-3:] == theirs
    assert {name.section for name, _ in inherited.sockets.named()} == {"http", "admin", "media", "tcp"}
    for each in theirs:
        os.close(each)


def test_what_the_service_manager_kept_and_no_manifest_names_is_closed(runtime: Runtime) -> None:
    prepared = make(config(), runtime)
    kept = {name: os.dup(each) for name, each in prepared.inherited.by_name().items()}
    stray = os.dup(prepared.arena.fd)
    estate = from_fdstore({**kept, "stray": stray})
    assert estate is not None
    assert "stray" not in estate.by_name()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(stray)
    assert all(os.fstat(each) for each in estate.descriptors)


def test_what_is_inherited_with_another_arena_or_too_little_is_refused(runtime: Runtime) -> None:
    prepared = make(config(), runtime)
    with pytest.raises(NotInheritable, match="descriptors"):
        parse_inherited(copies(prepared.inherited)[:-1])
    os.pwrite(prepared.arena.fd, b"garbage!", 0)
    with pytest.raises(NotInheritable, match="layout"):
        parse_inherited(copies(prepared.inherited))
    with pytest.raises(NotInheritable):
        parse_inherited([])


def test_the_lock_outlives_what_is_inherited_and_let_go(runtime: Runtime) -> None:
    prepared = make(config(), runtime)
    close(copies(prepared.inherited), runtime.lock)
    assert os.waitstatus_to_exitcode(os.waitpid(child_that_asks(runtime.lock), 0)[1]) == 0


def child_that_asks(lock: int) -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(0 if holder(lock, 0) == os.getppid() else 1)
    return pid


def test_nothing_is_found_where_nobody_lives(runtime: Runtime) -> None:
    assert from_orphans(runtime) is None
