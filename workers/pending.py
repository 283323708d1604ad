"""Requests that wait for control's reply, by number. It must never know HTTP, nor what a request means. Read next:
`workers/worker.py`, which performs the effects that end here.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from millrace.relay.contract.effects import Reply
from millrace.relay.contract.ids import RequestId
from millrace.relay.contract.inputs import (
    Deleted,
    Input,
    MoveAsked,
    Offered,
    Patched,
    RoomDeleted,
    RoomsAsked,
    RoomsListed,
    SessionAsked,
)
from millrace.relay.contract.rpc import PassedOn, PassedOnAgain

MAX_HOPS = 2
"""To the worker that opened a session, and to the one that it has just moved to."""

Request = Offered | Patched | Deleted | RoomsAsked | RoomsListed | RoomDeleted | SessionAsked | MoveAsked
MakeRequest = Callable[[RequestId], Request]


@dataclass(slots=True)
class _Waiting:
    request: Request
    reply: asyncio.Future[Reply]
    hops: int
    """How many workers passed it on, to us the last."""


class Desk:
    """Numbers requests, gives them to control, and waits for their replies."""

    def __init__(self, handle: Callable[[Input], None]) -> None:
        self._handle = handle
        self._waiting: dict[RequestId, _Waiting] = {}
        self._last = 0

    async def ask(self, make: MakeRequest, seconds: float, hops: int = 0) -> Reply | None:
        """Control's reply; None when there is none in time."""
        self._last += 1
        number = RequestId(self._last)
        waiting = _Waiting(make(number), asyncio.get_running_loop().create_future(), hops)
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

    def to_pass_on(self, number: RequestId, hops: int = MAX_HOPS) -> PassedOn | PassedOnAgain | None:
        """What to send to the owner; None when it was passed on so often already, or nobody waits any more."""
        waiting = self._waiting.get(number)
        if waiting is None or waiting.hops >= hops or not isinstance(waiting.request, PassedOn):
            return None
        return PassedOnAgain(waiting.request) if waiting.hops else waiting.request
