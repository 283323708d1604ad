"""How log lines look and where they go: plain for people, JSON for machines, each with its fields. It must never decide
what is logged, nor wait for who reads it. Read next: `workers/lines.py`, which drops what nobody takes, and
`CONTRIBUTING.md`, which says what belongs on which level.
"""

import json
import logging
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper
from logging.handlers import WatchedFileHandler

from millrace.relay.config.model import LogConfig
from millrace.workers.lines import Lines, Outlet
from millrace.workers.trusted_files import open_log

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def set_up(config: LogConfig, process: str) -> None:
    """Logs to the configured file, else to standard error. `process` stands in each line, such as `worker-0`. Raises
    OSError when the file cannot be opened and no parent had it open at the fork.
    """
    root = logging.getLogger()
    handler = _log_file(config.file, root.handlers) if config.file else LogStream(2)
    handler.setFormatter(Json(process) if config.format == "json" else Plain(process))
    replaced = [each for each in root.handlers if each is not handler]
    root.handlers[:] = [handler]
    for each in replaced:
        # The parent's, whose file would stay open here after its rotation.
        each.close()
    set_level(logging.getLevelNamesMapping()[config.level.upper()])


def set_level(level: int) -> None:
    """Sets the level of the whole process."""
    root = logging.getLogger()
    if root.level != level:
        root.setLevel(level)
    # Libraries log details at INFO that are none of an operator's.
    for name in ("aiohttp", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.WARNING, level))


def reopen() -> None:
    """Opens the log file anew, after it was rotated."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LogFile):
            handler.reopen()


def tell_dropped() -> bool:
    """Says how many lines were dropped, if any were and a line can be written again. False when none can."""
    are_told = True
    for handler in logging.getLogger().handlers:
        if isinstance(handler, (LogStream, LogFile)):
            handler.acquire()
            try:
                are_told &= handler.lines.tell_dropped()
            finally:
                handler.release()
    return are_told


def newly_dropped() -> int:
    """Returns how many lines this process has dropped since the last call."""
    handlers = logging.getLogger().handlers
    return sum(each.lines.newly_dropped() for each in handlers if isinstance(each, (LogStream, LogFile)))


class LogStream(logging.Handler):
    """Logs to a descriptor that is no file of ours."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self.lines = Lines(Outlet(descriptor), lambda count: _encoded(self, _dropped_record(count)))

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a line, or drops it."""
        try:
            line = _encoded(self, record)
        except Exception:
            # A call with arguments that do not fit its text.
            self.handleError(record)
        else:
            self.lines.write(line)


class LogFile(WatchedFileHandler):
    """Checks at each line whether the path still names the open file, and opens it anew when not. If that fails, a line
    says so, once, in the file that is still open.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        assert self.stream is not None, "it was opened"
        self.lines = Lines(Outlet(self.stream.fileno()), lambda count: _encoded(self, _dropped_record(count)))
        self._is_missed = False
        """True when opening anew has failed, which a line has said."""
        self._has_standard_error = os.path.samestat(os.fstat(2), os.fstat(self.stream.fileno()))
        """True when standard error goes to the file, as with a daemon: then it is opened anew with the file."""

    def _open(self) -> TextIOWrapper:
        return open(self.baseFilename, "a", encoding=self.encoding, errors=self.errors, opener=_opened)

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a line, or drops it when that fails, as on a full disk."""
        self.reopenIfNeeded()
        try:
            line = _encoded(self, record)
        except Exception:
            self.handleError(record)
        else:
            self.lines.write(line)

    def reopenIfNeeded(self) -> None:
        """Runs before each line. Closes the open file only when it has opened the next one."""
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
        self.lines.redirect(Outlet(opened.fileno()))
        if left is not None:
            # Closing writes what is buffered, which fails when the disk is full.
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
        text = "log.file: %s cannot be opened anew: %s; the log goes on in the old file"
        why = (self.baseFilename, error.strerror)
        # Written directly, as the logger is in the middle of a line.
        self.lines.write(_encoded(self, _warning(text, why)))

    def reopen(self) -> None:
        """Opens the file anew if it was moved away."""
        self.acquire()
        try:
            self.reopenIfNeeded()
            if self._has_standard_error and self.stream is not None:
                os.dup2(self.stream.fileno(), 1)
                os.dup2(self.stream.fileno(), 2)
        finally:
            self.release()


def _dropped_record(count: int) -> logging.LogRecord:
    return _warning("%s lines were dropped, as they could not be written at once", (count,))


def _warning(text: str, arguments: tuple[object, ...]) -> logging.LogRecord:
    return logging.LogRecord("millrace.log", logging.WARNING, __file__, 0, text, arguments, None)


def _encoded(handler: logging.Handler, record: logging.LogRecord) -> bytes:
    return (handler.format(record) + "\n").encode(errors="backslashreplace")


def _opened(path: str, _flags: int) -> int:
    return open_log(path)


def _log_file(path: str, inherited: Sequence[logging.Handler]) -> LogFile:
    try:
        return LogFile(path)
    except OSError:
        # The folder may be gone while the server runs. Then a worker goes on with the file that the master had open.
        for handler in inherited:
            if isinstance(handler, LogFile):
                return handler
        raise


class Plain(logging.Formatter):
    """`2026-11-26 12:00:00.123 INFO    worker-0 session opened room=hall participant=ann`."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Returns one line, and the traceback when there is one."""
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        fields = "".join(f" {name}={_plain(value)}" for name, value in _fields(record).items())
        head = f"{clock}.{int(record.msecs):03} {record.levelname:<7} {self._process} {record.getMessage()}{fields}"
        return head + ("\n" + self.formatException(record.exc_info) if record.exc_info else "")


class Json(logging.Formatter):
    """One JSON object a line."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line; fields stand beside time, level, process and message."""
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
    # Clients choose names. A name must not be able to add a line to the log.
    return text if text.isprintable() and " " not in text and text else json.dumps(text)
