"""Requests that wait for control's reply, by number. It must never know HTTP, nor what a request means. Read next:
`workers/worker.py`, which performs the effects that end here.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from relay.calls import PassedOn
from relay.effects import Deleted, Input, Offered, Patched, Reply, RoomDeleted, RoomsAsked, RoomsListed, SessionAsked
from relay.ids import RequestId

Request = Offered | Patched | Deleted | RoomsAsked | RoomsListed | RoomDeleted | SessionAsked
MakeRequest = Callable[[RequestId], Request]


@dataclass(slots=True)
class _Waiting:
    request: Request
    reply: asyncio.Future[Reply]
    passed_on_to_us: bool


class Desk:
    """Numbers requests, gives them to control, and waits for their replies."""

    def __init__(self, handle: Callable[[Input], None]) -> None:
        self._handle = handle
        self._waiting: dict[RequestId, _Waiting] = {}
        self._last = 0

    async def ask(self, make: MakeRequest, seconds: float, passed_on_to_us: bool = False) -> Reply | None:
        """Control's reply; None when there is none in time."""
        self._last += 1
        number = RequestId(self._last)
        waiting = _Waiting(make(number), asyncio.get_running_loop().create_future(), passed_on_to_us)
        self._waiting[number] = waiting
        try:
            self._handle(waiting.request)
            # Nearly every reply is there at once: no timer, no turn of the loop.
            if waiting.reply.done():
                return waiting.reply.result()
            async with asyncio.timeout(seconds):
                return await waiting.reply
        except TimeoutError:
            return None
        finally:
            del self._waiting[number]

    def reply(self, reply: Reply) -> None:
        """Control's answer. One that comes too late is nobody's."""
        waiting = self._waiting.get(reply.request)
        if waiting is not None and not waiting.reply.done():
            waiting.reply.set_result(reply)

    def to_pass_on(self, number: RequestId) -> PassedOn | None:
        """What to send to the owner; None when it was passed on to us already, or nobody waits any more."""
        waiting = self._waiting.get(number)
        if waiting is None or waiting.passed_on_to_us or not isinstance(waiting.request, PassedOn):
            return None
        return waiting.request
