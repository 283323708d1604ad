"""One headless browser for a test: starts `bot.mjs`, sends it JSON lines, awaits the answers. It must never know the
relay. Read next: `bot.mjs`, the other end.
"""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

BOT = Path(__file__).parent / "bot.mjs"


class BrowserError(Exception):
    """The page threw, or the browser is gone."""


class Browser:
    """Chromium or Firefox with a fake camera; pages by name."""

    def __init__(self, process: asyncio.subprocess.Process, kind: str) -> None:
        self.kind = kind
        self.version = ""
        self._process = process
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._next = 0
        self._reader: asyncio.Task[None] | None = None

    async def goto(self, url: str, page: str = "main") -> None:
        """Opens a URL and waits for its load event."""
        await self._ask("goto", url=url, page=page)

    async def run(self, code: str, page: str = "main", seconds: float = 60, frame: str = "") -> Any:
        """Runs the body of an async function in the page, or in its frame whose URL has `frame` in it; returns its JSON
        value.
        """
        return await asyncio.wait_for(self._ask("eval", code=code, page=page, frame=frame), seconds)

    async def colour_scheme(self, scheme: str, page: str = "main") -> None:
        """`light` or `dark`, as a user's system asks for it."""
        await self._ask("scheme", value=scheme, page=page)

    async def crash(self, page: str = "main") -> None:
        """Kills the process of a page of Chromium, whose name is then free for another one."""
        await asyncio.wait_for(self._ask("crash", page=page), 60)

    async def viewport(self, width: int, height: int, page: str = "main") -> None:
        """Sets the page's size in CSS pixels."""
        await self._ask("viewport", width=width, height=height, page=page)

    async def screenshot(self, path: Path, page: str = "main") -> None:
        """Writes a PNG of what the page shows."""
        path.parent.mkdir(parents=True, exist_ok=True)
        await self._ask("screenshot", path=str(path), page=page)

    async def close_page(self, page: str = "main") -> None:
        """Closes one page, as a user closes a tab."""
        await self._ask("close", page=page)

    async def _ask(self, verb: str, **rest: Any) -> Any:
        self._next += 1
        answer = asyncio.get_running_loop().create_future()
        self._answers[self._next] = answer
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"id": self._next, "do": verb, **rest}).encode() + b"\n")
        await self._process.stdin.drain()
        return await answer

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            message = json.loads(line)
            answer = self._answers.pop(message["id"], None)
            if answer is None or answer.done():
                continue
            if "error" in message:
                answer.set_exception(BrowserError(f"{self.kind}: {message['error']}"))
            else:
                answer.set_result(message["value"])
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(BrowserError(f"{self.kind} is gone"))


@contextlib.asynccontextmanager
async def open_browser(kind: str) -> AsyncIterator[Browser]:
    """Starts `chromium` or `firefox`; ends it and all its children at the end."""
    process = await asyncio.create_subprocess_exec(
        "node",
        str(BOT),
        kind,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
        limit=16 * 1024 * 1024,
    )
    browser = Browser(process, kind)
    try:
        assert process.stdout is not None
        hello = json.loads(await asyncio.wait_for(process.stdout.readline(), 60))
        browser.version = hello["version"]
        browser._reader = asyncio.create_task(browser._read())
        yield browser
    finally:
        assert process.stdin is not None
        process.stdin.close()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(process.wait(), 10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        if browser._reader is not None:
            await browser._reader
