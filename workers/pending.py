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
"""How often a request is passed on, then it gets 508: to the worker that opened its session, and to the one to which
the session has just moved.
"""

Request = Offered | Patched | Deleted | RoomsAsked | RoomsListed | RoomDeleted | SessionAsked | MoveAsked
MakeRequest = Callable[[RequestId], Request]


@dataclass(slots=True)
class _Waiting:
    request: Request
    reply: asyncio.Future[Reply]
    hops: int
    """How many workers have passed it on; 0 for a request of our own HTTP server."""


class PendingRequests:
    """Numbers requests, gives them to control, and waits for the replies."""

    def __init__(self, handle: Callable[[Input], None]) -> None:
        self._handle = handle
        self._waiting: dict[RequestId, _Waiting] = {}
        self._last = 0

    async def ask(self, make: MakeRequest, seconds: float, hops: int = 0) -> Reply | None:
        """Returns control's reply; None when there is none within `seconds`."""
        self._last += 1
        number = RequestId(self._last)
        waiting = _Waiting(make(number), asyncio.get_running_loop().create_future(), hops)
        self._waiting[number] = waiting
        try:
            self._handle(waiting.request)
            # Nearly every reply is there at once, and then needs no timer and no round of the loop.
            if waiting.reply.done():
                return waiting.reply.result()
            async with asyncio.timeout(seconds):
                return await waiting.reply
        except TimeoutError:
            return None
        finally:
            del self._waiting[number]

    def reply(self, reply: Reply) -> None:
        """Takes control's reply. A late one, whose request waits no longer, is dropped."""
        waiting = self._waiting.get(reply.request)
        if waiting is not None and not waiting.reply.done():
            waiting.reply.set_result(reply)

    def to_pass_on(self, number: RequestId, hops: int = MAX_HOPS) -> PassedOn | PassedOnAgain | None:
        """Returns what to send to the session's owner; None when the request was passed on `hops` times already, or
        waits no longer.
        """
        waiting = self._waiting.get(number)
        if waiting is None or waiting.hops >= hops or not isinstance(waiting.request, PassedOn):
            return None
        return PassedOnAgain(waiting.request) if waiting.hops else waiting.request
