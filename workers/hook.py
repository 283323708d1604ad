"""Asks the operator's hook over HTTP, and gives its answer back unread. Owns deadlines, bounds and connections; must
never decide what an answer means or keep one. Read next: `relay/access/hook.py`, which does.
"""

import asyncio
import logging

import aiohttp

from millrace.relay.access.hook import MAX_QUESTIONS
from millrace.relay.config.model import AuthConfig
from millrace.relay.contract.access import HookFailure, HookOutcome, HookQuestion, HookReplied

log = logging.getLogger("millrace.hook")

MAX_ANSWER_BYTES = 16_384
"""Of an answer's body: names of some hundred rooms. A longer one is unreadable."""
IDLE_SECONDS = 30.0
"""For a connection to the hook to be used again."""

WARNING_SECONDS = 10.0
"""Between two warnings that the hook does not answer: it may be asked hundreds of times a second. Metrics count all."""


class HookClient:
    """Asks one hook. At most `MAX_QUESTIONS` of control are under way, each on a connection of its own."""

    def __init__(self, auth: AuthConfig) -> None:
        self._url = auth.hook
        self._seconds = auth.hook_timeout_ms / 1000
        self._headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if auth.hook_secret:
            self._headers["Authorization"] = f"Bearer {auth.hook_secret}"
        self._session: aiohttp.ClientSession | None = None
        self._is_failing = False
        """True when a warning has said so."""
        self._next_warning_at = 0.0
        """By the loop's clock."""

    async def ask(self, question: HookQuestion) -> HookReplied | HookFailure:
        """Returns the hook's answer, or how it failed to give one."""
        why: object = ""
        try:
            async with asyncio.timeout(self._seconds):
                answer = await self._post(question)
        except TimeoutError:
            answer = HookOutcome.TIMEOUT
        except aiohttp.ClientConnectionError as error:
            answer, why = HookOutcome.UNREACHABLE, error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            answer, why = HookOutcome.UNREADABLE, error
        except Exception:
            log.exception("asking the hook failed")
            return HookOutcome.UNREACHABLE
        self._tell(answer, why)
        return answer

    async def stop(self) -> None:
        """Closes its connections."""
        if self._session is not None:
            await self._session.close()

    async def _post(self, question: HookQuestion) -> HookReplied | HookFailure:
        try:
            return await self._post_once(question)
        except aiohttp.ClientConnectorError:
            raise
        except aiohttp.ClientConnectionError:
            # The hook closed an idle connection while we wrote to it. It has decided nothing yet.
            return await self._post_once(question)

    async def _post_once(self, question: HookQuestion) -> HookReplied | HookFailure:
        body = {
            "action": question.action.value,
            "room": question.room,
            "token": question.token,
            "identity": question.identity,
            "participant": question.participant,
            "address": question.address,
        }
        # A redirect could lead a token to another server.
        async with self._opened().post(self._url, json=body, headers=self._headers, allow_redirects=False) as answer:
            content = await _at_most(answer.content, MAX_ANSWER_BYTES)
            return HookOutcome.UNREADABLE if content is None else HookReplied(answer.status, content)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=MAX_QUESTIONS, keepalive_timeout=IDLE_SECONDS),
                # The deadline is ours, around everything.
                timeout=aiohttp.ClientTimeout(total=None),
                # A coded answer could grow a thousandfold.
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    def _tell(self, answer: HookReplied | HookFailure, why: object) -> None:
        now = asyncio.get_running_loop().time()
        if isinstance(answer, HookReplied):
            if self._is_failing:
                log.info("the hook (auth.hook) answers again")
            self._is_failing = False
        elif not self._is_failing and now >= self._next_warning_at:
            self._is_failing, self._next_warning_at = True, now + WARNING_SECONDS
            log.warning("the hook (auth.hook) does not answer", extra={"outcome": answer, "error": str(why)})


async def _at_most(content: aiohttp.StreamReader, limit: int) -> bytes | None:
    """Returns the whole body; None when it is longer."""
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > limit:
            return None
    return bytes(body)
