"""Requests for another worker's sessions: passes ours on over the bus, and answers those that other workers pass on. It
must never decide whose a session is, as control does. Read next: `workers/pending.py`, where requests wait.
"""

import asyncio
from dataclasses import replace

from millrace.relay.contract.effects import PassOn, Reply
from millrace.relay.contract.problems import problem
from millrace.relay.contract.rpc import CallUnknown, PassedOn, PassedOnAgain
from millrace.workers.bus import CALL_SECONDS, Bus
from millrace.workers.pending import MAX_HOPS, PendingRequests

ARRIVAL_SECONDS = 0.05
"""Until a request that was passed on is tried once more, when its session may be arriving by a move: many times what an
event of the engine takes to reach control.
"""


async def pass_on(effect: PassOn, pending: PendingRequests, bus: Bus) -> None:
    """Passes a request on to the worker that control has named, and gives that worker's reply to the waiting client."""
    otherwise = effect.otherwise
    request = pending.to_pass_on(effect.request, MAX_HOPS if otherwise is None else 1)
    if request is None:
        lost = problem(effect.request, 508, "passed-on-twice", "The session's worker does not know it.")
        pending.reply(otherwise or lost)
        return
    answer = await bus.call(effect.slot, request)
    if isinstance(answer, Reply):
        pending.reply(replace(answer, request=effect.request))
    elif isinstance(answer, CallUnknown):
        earlier = "The session's worker is of another release, which does not know this request. Ask again later."
        pending.reply(otherwise or problem(effect.request, 503, "request-unknown", earlier))
    else:
        silent = problem(effect.request, 504, "no-answer", "The session's worker does not answer.")
        pending.reply(otherwise or silent)


async def answer_passed_on(call: PassedOn | PassedOnAgain, pending: PendingRequests) -> Reply | None:
    """Returns our reply to a request that another worker has passed on; None when control gives none in time."""
    hops, request = (2, call.request) if isinstance(call, PassedOnAgain) else (1, call)
    reply = await pending.ask(lambda number: replace(request, request=number), CALL_SECONDS, hops)
    if reply is not None and reply.status in (404, 508):
        # The asking worker knows that the session moves here, and our engine is about to name it.
        await asyncio.sleep(ARRIVAL_SECONDS)
        reply = await pending.ask(lambda number: replace(request, request=number), CALL_SECONDS, hops)
    return reply
