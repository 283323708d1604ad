"""What the service manager is told, as it receives it."""

import errno
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from millrace.master.takeover import sd_notify as notify_module
from millrace.master.takeover.sd_notify import ServiceManager


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(5)
        yield listener


def heard(manager: socket.socket) -> list[str]:
    return manager.recv(4096).decode().split("\n")


def test_each_state_is_told_in_the_words_of_sd_notify(manager: socket.socket) -> None:
    environment = {"NOTIFY_SOCKET": manager.getsockname()}
    service_manager = ServiceManager(environment)
    assert environment == {}, "workers have no say"
    service_manager.ready("2 workers serve")
    assert heard(manager) == ["READY=1", "STATUS=2 workers serve"]
    service_manager.reloading()
    reloading = heard(manager)
    assert reloading[0] == "RELOADING=1"
    assert reloading[1].startswith("MONOTONIC_USEC=")
    service_manager.stopping("Draining", 40)
    assert heard(manager) == ["STOPPING=1", "EXTEND_TIMEOUT_USEC=40000000", "STATUS=Draining"]


def test_an_abstract_address_is_reached_too() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0millrace-test-{os.getpid()}")
        listener.settimeout(5)
        ServiceManager({"NOTIFY_SOCKET": f"@millrace-test-{os.getpid()}"}).ready("fine")
        assert heard(listener)[0] == "READY=1"


def test_the_watchdog_is_fed_twice_in_the_time_that_it_allows(manager: socket.socket) -> None:
    service_manager = ServiceManager(
        {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "8000000", "WATCHDOG_PID": str(os.getpid())}
    )
    assert service_manager.watchdog_seconds == 4
    for now in (100.0, 100.5, 102.0):
        service_manager.alive(now)
    assert [heard(manager), heard(manager)] == [["WATCHDOG=1"], ["WATCHDOG=1"]]
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(1)


@pytest.mark.parametrize("environment", [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "9", "WATCHDOG_PID": "1"}])
def test_nobody_has_to_listen(environment: dict[str, str]) -> None:
    service_manager = ServiceManager(environment | {"NOTIFY_SOCKET": "/nowhere/at/all"})
    assert service_manager.watchdog_seconds is None
    service_manager.alive(1.0)
    service_manager.ready("fine")


def test_descriptors_are_kept_by_name_and_never_dropped_for_an_error(manager: socket.socket, tmp_path: Path) -> None:
    with (tmp_path / "arena").open("w") as file:
        ServiceManager({"NOTIFY_SOCKET": manager.getsockname()}).store({"arena": file.fileno()})
        text, (kept,), _, _ = socket.recv_fds(manager, 4096, 4)
        assert text.decode().split("\n") == ["FDSTORE=1", "FDNAME=millrace-arena", "FDPOLL=0"]
        assert os.path.samestat(os.fstat(kept), os.fstat(file.fileno()))
        os.close(kept)


def test_to_forget_ends_when_the_service_manager_has_done_so(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify_module, "_STORE_SECONDS", 60.0)
    service_manager = ServiceManager({"NOTIFY_SOCKET": manager.getsockname()})
    forgetting = threading.Thread(target=service_manager.forget, args=(["arena", "lock"],))
    forgetting.start()
    assert heard(manager) == ["FDSTOREREMOVE=1", "FDNAME=millrace-arena"]
    assert heard(manager) == ["FDSTOREREMOVE=1", "FDNAME=millrace-lock"]
    text, (barrier,), _, _ = socket.recv_fds(manager, 4096, 4)
    assert text == b"BARRIER=1"
    assert forgetting.is_alive()
    os.close(barrier)
    forgetting.join(10)
    assert not forgetting.is_alive()


def test_nothing_to_forget_is_not_told(manager: socket.socket) -> None:
    ServiceManager({"NOTIFY_SOCKET": manager.getsockname()}).forget([])
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(1)


def test_descriptors_that_cannot_be_sent_for_want_of_a_socket_are_not_kept_and_nothing_else(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    service_manager = ServiceManager({"NOTIFY_SOCKET": manager.getsockname()})
    monkeypatch.setattr(notify_module.socket, "socket", refused)
    service_manager.store({"arena": 0})
    assert "stores no descriptors" in caplog.text
