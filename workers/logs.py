"""How log lines look: plain for people, JSON for machines, each with its fields. It must never decide what is logged.
Read next: `CONTRIBUTING.md` for what belongs on which level.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from logging.handlers import WatchedFileHandler

from millrace.relay.config.model import LogConfig

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def set_up(config: LogConfig, process: str) -> None:
    """Logs to the configured file, else to standard error. `process` is who speaks, such as `worker-0`. Raises OSError
    when the file cannot be written, and the process was not forked by one that has it open.
    """
    root = logging.getLogger()
    handler = _log_file(config.file, root.handlers) if config.file else logging.StreamHandler(sys.stderr)
    handler.setFormatter(Json(process) if config.format == "json" else Plain(process))
    root.handlers[:] = [handler]
    set_level(logging.getLevelNamesMapping()[config.level.upper()])


def set_level(level: int) -> None:
    """Of the whole process."""
    root = logging.getLogger()
    if root.level != level:
        root.setLevel(level)
    # Libraries say on INFO what nobody asked.
    for name in ("aiohttp", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.WARNING, level))


def reopen() -> None:
    """After the log file was rotated."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LogFile):
            handler.reopen()


class LogFile(WatchedFileHandler):
    """Looks with each line whether its file is still the one of that name. One that cannot be opened anew is missed in
    the file that is open, and is nobody's error.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._is_missed = False
        """And that has been said."""
        self._has_standard_error = self.stream is not None and os.path.samestat(
            os.fstat(2), os.fstat(self.stream.fileno())
        )
        """A daemon's: it goes wherever the file goes."""

    def reopenIfNeeded(self) -> None:
        """With each line. Lets go of the open file only for another."""
        try:
            if self._is_open():
                self._is_missed = False
                return
            opened = self._open()
        except OSError as error:
            if not self._is_missed:
                self._is_missed = True
                self._miss(error)
            return
        left, self.stream, self._is_missed = self.stream, opened, False
        self._statstream()
        if left is not None:
            # What could not be written, to a disk that is full, say, still cannot.
            with suppress(OSError):
                left.close()

    def _is_open(self) -> bool:
        if self.stream is None:
            return False
        try:
            there = os.stat(self.baseFilename)
        except FileNotFoundError:
            return False
        return (there.st_dev, there.st_ino) == (self.dev, self.ino)

    def _miss(self, error: OSError) -> None:
        text = "log.file: %s cannot be opened anew: %s; the log goes on where it was"
        why = (self.baseFilename, error.strerror)
        line = logging.LogRecord("millrace.log", logging.WARNING, __file__, 0, text, why, None)
        # Not by the logger: this is within a line of its.
        logging.StreamHandler.emit(self, line)

    def reopen(self) -> None:
        """Lets go of a file that was moved away."""
        self.acquire()
        try:
            self.reopenIfNeeded()
            if self._has_standard_error and self.stream is not None:
                os.dup2(self.stream.fileno(), 1)
                os.dup2(self.stream.fileno(), 2)
        finally:
            self.release()


def _log_file(path: str, inherited: Sequence[logging.Handler]) -> LogFile:
    try:
        return LogFile(path)
    except OSError:
        # The folder may be gone while the server runs: then a worker has the master's, as it was forked with it.
        for handler in inherited:
            if isinstance(handler, LogFile):
                return handler
        raise


class Plain(logging.Formatter):
    """`2026-11-26 12:00:00.123 INFO    worker-0 a client came room=hall participant=ann`."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback when there is one."""
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        fields = "".join(f" {name}={_plain(value)}" for name, value in _fields(record).items())
        head = f"{clock}.{int(record.msecs):03} {record.levelname:<7} {self._process} {record.getMessage()}{fields}"
        return head + ("\n" + self.formatException(record.exc_info) if record.exc_info else "")


class Json(logging.Formatter):
    """One object a line."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """The fields stand beside time, level, process and message."""
        content = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "process": self._process,
            "message": record.getMessage(),
        } | _fields(record)
        if record.exc_info:
            content["traceback"] = self.formatException(record.exc_info)
        return json.dumps(content, default=str)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in record.__dict__.items() if name not in _STANDARD}


def _plain(value: object) -> str:
    text = str(value)
    # A client chooses its name: it must not be able to write a line of its own.
    return text if text.isprintable() and " " not in text and text else json.dumps(text)
