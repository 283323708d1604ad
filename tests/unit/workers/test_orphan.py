"""A worker without a master, and who gets what it has kept."""

import asyncio
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from millrace.master.start.prepare import Prepared, make
from millrace.master.takeover import predecessor
from millrace.master.takeover.predecessor import NotInheritable, parse_inherited
from millrace.master.takeover.runtime_directory import TAKEOVER_SOCKET, Runtime, claim, leave
from millrace.relay.config.model import Config
from millrace.relay.config.parse import parse
from millrace.workers.orphan import MAX_DESCRIPTORS, Orphan

NOBODY = 65_534


def config(directory: Path, *settings: str) -> Config:
    fixed = ("http.port=0", "admin.port=0", "media.port=0", "workers.count=48", "media.steering=handover")
    parsed = parse("", [*fixed, f'runtime.directory="{directory}"', *settings])
    assert isinstance(parsed, Config)
    return parsed


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    # Not pytest's, whose parents keep other users out.
    with tempfile.TemporaryDirectory(prefix="millrace-test-") as directory:
        made = claim(config(Path(directory)))
        yield made
        leave(made)
        signal.alarm(0)


def orphan(prepared: Prepared, ends: list[str], *, is_orphaned: bool = True) -> Orphan:
    boot = replace(prepared.child(0, 1).boot, master=-1 if is_orphaned else os.getppid())
    return Orphan(boot, lambda: 1, lambda: ends.append("it ends"))


async def ask(runtime: Runtime) -> list[int]:
    return await asyncio.to_thread(predecessor._ask, runtime.directory / TAKEOVER_SOCKET)


async def test_a_successor_gets_all_descriptors_of_the_largest_server(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predecessor, "ANSWER_SECONDS", 30)
    prepared = make(config(runtime.directory), runtime)
    ends: list[str] = []
    one = orphan(prepared, ends)
    one.look()
    received = await ask(runtime)
    assert len(received) > MAX_DESCRIPTORS, "more than one message takes"
    inherited = parse_inherited(received)
    for kept, given in zip(prepared.inherited.descriptors, inherited.descriptors, strict=True):
        assert os.path.samestat(os.fstat(kept), os.fstat(given))
    predecessor.close(received, runtime.lock)
    one.look()
    assert ends == [], "it waits to be ended"


async def test_nobody_gets_anything_while_the_master_lives(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predecessor, "ANSWER_SECONDS", 0.2)
    one = orphan(make(config(runtime.directory), runtime), [], is_orphaned=False)
    one.look()
    assert await ask(runtime) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
async def test_another_user_gets_nothing(runtime: Runtime, caplog: pytest.LogCaptureFixture) -> None:
    one = orphan(make(config(runtime.directory), runtime), [])
    one.look()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
        asking.settimeout(5)
        # The directory keeps others out; without it, the user is looked at.
        runtime.directory.chmod(0o755)
        (runtime.directory / TAKEOVER_SOCKET).chmod(0o777)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.seteuid(NOBODY)
                asking.connect(str(runtime.directory / TAKEOVER_SOCKET))
                status = 0 if asking.recv(16) == b"" else 2
            finally:
                os._exit(status)
        async with asyncio.timeout(10):
            while "another user's process wants to be the master" not in caplog.text:
                await asyncio.sleep(0.01)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_an_orphan_that_nobody_can_find_ends_at_once(runtime: Runtime) -> None:
    prepared = make(config(runtime.directory), replace(runtime, can_be_found=False))
    ends: list[str] = []
    orphan(prepared, ends).look()
    assert ends == ["it ends"]


async def test_half_of_what_is_inherited_is_refused(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predecessor, "ANSWER_SECONDS", 30)
    prepared = make(config(runtime.directory), runtime)
    orphan(prepared, []).look()
    received = await ask(runtime)
    with pytest.raises(NotInheritable, match="descriptors"):
        parse_inherited(received[:100])
    predecessor.close(received, runtime.lock)
