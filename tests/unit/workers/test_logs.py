import errno
import json
import logging
import os
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from millrace.relay.config.model import LogConfig
from millrace.workers.logs import Json, LogFile, Plain, reopen, set_up


def record(message: str, **fields: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "millrace", "levelno": 20, "levelname": "INFO", "msg": message})
    made.__dict__.update(fields)
    return made


def test_a_plain_line_shows_its_fields() -> None:
    line = Plain("worker-0").format(record("session opened", room="hall", session="00.abc"))
    assert line.endswith("INFO    worker-0 session opened room=hall session=00.abc")


def test_a_plain_line_says_the_day_too() -> None:
    made = record("session opened")
    made.created, made.msecs = datetime(2026, 11, 26, 22, 21, 58).timestamp(), 691.0
    assert Plain("worker-0").format(made) == "2026-11-26 22:21:58.691 INFO    worker-0 session opened"


def test_a_name_that_a_client_chose_cannot_forge_a_line() -> None:
    line = Plain("worker-0").format(record("session opened", room="x\n12:00 ERROR gone", participant="a b", cause=""))
    assert "\n" not in line
    assert 'room="x\\n12:00 ERROR gone" participant="a b" cause=""' in line


def test_a_json_line_is_one_object_with_its_fields() -> None:
    line = Json("worker-1").format(record("session closed", cause="closed"))
    content = json.loads(line)
    assert content["process"] == "worker-1"
    assert content["level"] == "info"
    assert content["cause"] == "closed"
    assert content["time"].endswith("Z")


def test_a_traceback_stays_with_its_line() -> None:
    try:
        raise ValueError("boom")
    except ValueError as error:
        failed = record("failed", exc_info=(ValueError, error, error.__traceback__))
    assert "ValueError: boom" in json.loads(Json("w").format(failed))["traceback"]
    assert Plain("w").format(failed).endswith("ValueError: boom")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "log").mkdir()
    return tmp_path / "log" / "millrace.log"


@pytest.fixture
def log_file(path: Path) -> Iterator[LogFile]:
    """The one handler, at work."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    set_up(LogConfig(file=str(path)), "master")
    (handler,) = root.handlers
    assert isinstance(handler, LogFile)
    yield handler
    for each in {handler, *root.handlers} - set(before):
        each.close()
    root.handlers[:] = before
    root.setLevel(level)


def test_log_whose_folder_vanishes_goes_on_in_the_open_file_says_so_once_and_comes_back(
    path: Path, log_file: LogFile
) -> None:
    shutil.move(path.parent, path.parent.with_name("moved"))
    moved = path.parent.with_name("moved") / path.name
    for text in ("first", "second"):
        logging.getLogger("millrace").info(text)
        reopen()
    lines = moved.read_text().splitlines()
    assert [line.rpartition(" ")[2] for line in lines[1:]] == ["first", "second"]
    assert "WARNING master log.file: " in lines[0]
    assert "cannot be opened anew: No such file or directory" in lines[0]
    path.parent.mkdir()
    logging.getLogger("millrace").info("third")
    assert path.read_text().endswith("third\n")
    assert len(moved.read_text().splitlines()) == 3
    shutil.rmtree(path.parent)
    logging.getLogger("millrace").info("fourth")
    reopen()
    path.parent.mkdir()
    reopen()
    logging.getLogger("millrace").info("fifth")
    assert "fifth" in path.read_text()


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOSPC, errno.EACCES])
def test_log_that_cannot_be_made_after_its_rotation_goes_on_in_the_rotated_file_until_it_can(
    path: Path, log_file: LogFile, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    rotated = path.rename(path.with_suffix(".1"))

    def refused(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr("millrace.workers.logs.open_log", refused)
        reopen()
        logging.getLogger("millrace").info("meanwhile")
    assert rotated.read_text().count("cannot be opened anew") == 1
    assert os.strerror(code) in rotated.read_text()
    assert rotated.read_text().endswith("meanwhile\n")
    reopen()
    logging.getLogger("millrace").info("later")
    assert path.read_text().endswith("later\n")


def test_worker_that_cannot_open_the_log_has_the_one_that_it_was_forked_with(path: Path, log_file: LogFile) -> None:
    shutil.move(path.parent, path.parent.with_name("moved"))
    set_up(LogConfig(file=str(path)), "worker-0")
    logging.getLogger("millrace").info("serves")
    assert (path.parent.with_name("moved") / path.name).read_text().endswith("worker-0 serves\n")


def test_log_that_cannot_be_opened_at_the_start_is_refused(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        set_up(LogConfig(file=str(path.parent / "missing" / "log")), "master")
