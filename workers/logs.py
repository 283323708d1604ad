"""How log lines look: plain for people, JSON for machines, each with its fields. It must never decide what is logged.
Read next: `CONTRIBUTING.md` for what belongs on which level.
"""

import json
import logging
import sys
import time

from relay.config import LogConfig

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def set_up(config: LogConfig, process: str) -> None:
    """Logs to standard error, which the service manager keeps. `process` is who speaks, such as `worker-0`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Json(process) if config.format == "json" else Plain(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(config.level.upper())
    # Libraries say on INFO what nobody asked.
    for name in ("aiohttp", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


class Plain(logging.Formatter):
    """`12:00:00.123 INFO  worker-0 a client came room=hall participant=ann`."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback when there is one."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
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
