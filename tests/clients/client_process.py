"""Clients that are programs of their own, built on pion or on libdatachannel: each publishes or watches, and tells what
happens in JSON lines. It must never know what is tested. Read next: `pion/main.go`, `libdatachannel/client.mjs`.
"""

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path
from types import TracebackType
from typing import Any

FOLDER = Path(__file__).parent
PROGRAMS = {
    "pion": (str(FOLDER / "pion" / "build" / "client"),),
    "libdatachannel": ("node", str(FOLDER / "libdatachannel" / "client.mjs")),
}
END_SECONDS = 10.0
Told = dict[str, Any]


class ClientProcess:
    """One session of one program; `async with` starts it, and ends it with SIGTERM, to which it answers with DELETE."""

    def __init__(self, library: str, does: str, url: str, *arguments: str, **options: object) -> None:
        """`library` is a key of PROGRAMS; `does` is `publish` or `watch`; options become `--name value`."""
        flags = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        self._command = [*PROGRAMS[library], "--url", url, *flags, *arguments, does]
        self.last: dict[tuple[str, str], Told] = {}
        """The newest line by its event and kind (`video`, `audio` or nothing)."""
        self._news = asyncio.Event()
        self._is_over = False

    async def __aenter__(self) -> "ClientProcess":
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            # An SDP in JSON is one line.
            limit=1 << 20,
        )
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.end()
        if error is not None:
            for told in self.last.values():
                print(self._command[0], json.dumps(told))

    async def end(self) -> int:
        """Ends it, if it has not ended, and returns its exit status; negative is the signal that killed it."""
        if self._process.returncode is None:
            # Not `terminate()`, which would reap a process that ends just now, and its status would be lost.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), END_SECONDS)
        if self._process.returncode is None:
            self._process.kill()
        status = await self._process.wait()
        await self._reading
        return status

    async def until(self, event: str, kind: str = "", seconds: float = 60.0, **least: int) -> Told:
        """The first line of that event and kind whose numbers are at least these.

        Raises AssertionError when the program ends before, and TimeoutError.
        """
        async with asyncio.timeout(seconds):
            while True:
                told = self.last.get((event, kind))
                if told is not None and all(told[name] >= number for name, number in least.items()):
                    return told
                assert not self._is_over, f"{event} {kind} {least} never came; last: {list(self.last.values())}"
                self._news.clear()
                await self._news.wait()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            told = json.loads(line)
            self.last[told["event"], told.get("kind", "")] = told
            self._news.set()
        self._is_over = True
        self._news.set()
