"""What others plant is not followed. Only root can be somebody else; in its place stands a user who is not root."""

import errno
import fcntl
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from millrace.master.start.daemon import PidFileRefused, held
from millrace.master.takeover.reexec import Executable
from millrace.relay.config.model import LogConfig
from millrace.workers.logs import set_up
from millrace.workers.trusted_files import Untrusted, open_log, open_trusted

APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT
SOMEBODY, ANOTHER = 4242, 4243
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")


def planted(path: Path, target: Path | str, user: int = SOMEBODY) -> Path:
    path.symlink_to(target)
    os.lchown(path, user, user)
    return path


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """As /tmp."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A file of ours, of which nobody may change a byte."""
    path = tmp_path / "victim"
    path.write_text("as it was")
    yield path
    assert path.read_text() == "as it was"


def test_a_new_file_is_made_and_an_old_one_opened_with_the_mode_that_others_may_not_read(tmp_path: Path) -> None:
    path = tmp_path / "made"
    before = os.umask(0)
    try:
        for text in (b"one", b"two"):
            descriptor = open_trusted(path, APPEND)
            os.write(descriptor, text)
            assert not os.get_inheritable(descriptor)
            os.close(descriptor)
    finally:
        os.umask(before)
    assert path.read_text() == "onetwo"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_links_of_our_own_are_followed_wherever_they_stand_on_the_way(tmp_path: Path, shared: Path) -> None:
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    (tmp_path / "deep" / "up").symlink_to("../deep/deeper/")
    (shared / "way").symlink_to(tmp_path / "deep")
    (tmp_path / "deep" / "deeper" / "log").symlink_to("./../last")
    os.close(open_trusted(shared / "way" / "up" / "log", APPEND))
    assert (tmp_path / "deep" / "last").exists()


def test_links_that_go_round_and_paths_that_are_not_there_are_errors_as_ever(tmp_path: Path) -> None:
    (tmp_path / "round").symlink_to("round")
    for path, expected in (
        (tmp_path / "round", errno.ELOOP),
        (tmp_path / "none" / "log", errno.ENOENT),
        (tmp_path, errno.EISDIR),
        (Path("/"), errno.EISDIR),
    ):
        with pytest.raises(OSError, match=os.strerror(expected)):
            open_trusted(path, APPEND)


def test_standard_error_has_a_path_too() -> None:
    os.close(open_trusted("/dev/stderr", os.O_WRONLY | os.O_APPEND))
    reading, writing = os.pipe()
    os.close(open_trusted(f"/proc/self/fd/{writing}", os.O_WRONLY))
    os.close(reading)
    os.close(writing)


@needs_root
def test_a_link_of_another_user_is_not_followed_at_the_end_nor_on_the_way(
    tmp_path: Path, shared: Path, victim: Path
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, SOMEBODY, SOMEBODY)
    for folder in (shared, theirs):
        for path in (planted(folder / "log", victim), planted(folder / "way", tmp_path) / "victim"):
            with pytest.raises(Untrusted, match=f"a symbolic link of user {SOMEBODY}, which is not trusted"):
                open_trusted(path, APPEND)


@needs_root
def test_who_is_not_root_follows_the_links_of_a_directorys_owner_in_it_and_no_others(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: ANOTHER)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, SOMEBODY, SOMEBODY)
    os.close(open_trusted(planted(theirs / "log", tmp_path / "real"), APPEND))
    for path in (planted(shared / "log", tmp_path / "real"), planted(theirs / "third", tmp_path / "real", 4244)):
        with pytest.raises(Untrusted):
            open_trusted(path, APPEND)


@needs_root
def test_in_a_directory_of_everybody_a_file_pipe_or_second_name_of_another_user_is_not_taken(
    shared: Path, victim: Path
) -> None:
    (shared / "file").write_text("")
    os.mkfifo(shared / "pipe")
    for path in (shared / "file", shared / "pipe"):
        os.chown(path, SOMEBODY, SOMEBODY)
        with pytest.raises(Untrusted, match=f"a file of user {SOMEBODY}"):
            open_trusted(path, APPEND)
    os.link(victim, shared / "second")
    with pytest.raises(Untrusted, match="a file with a second name"):
        open_trusted(shared / "second", APPEND)


def test_a_log_that_is_a_named_pipe_is_opened_without_a_reader_and_waits_for_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    log = open_log(tmp_path / "pipe")
    assert os.write(log, b"first") == 5
    fcntl.fcntl(log, fcntl.F_SETPIPE_SZ, 4096)
    with pytest.raises(BlockingIOError):
        os.write(log, bytes(4096))
    reading = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    assert os.read(reading, 5) == b"first"
    again = open_log(tmp_path / "pipe")
    for descriptor in (log, reading, again):
        os.close(descriptor)


@needs_root
def test_neither_the_pid_file_nor_the_log_file_writes_through_a_planted_link(shared: Path, victim: Path) -> None:
    link = planted(shared / "millrace", victim)
    with (
        pytest.raises(PidFileRefused, match=f"a symbolic link of user {SOMEBODY}"),
        held(link, Executable(("/bin/false",), shared, None, False)),
    ):
        raise AssertionError("not reached")
    handlers = logging.getLogger().handlers[:]
    with pytest.raises(Untrusted):
        set_up(LogConfig(file=str(link)), "master")
    assert logging.getLogger().handlers == handlers
