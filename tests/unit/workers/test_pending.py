import asyncio

from millrace.relay.contract.effects import Reply
from millrace.relay.contract.ids import RequestId
from millrace.relay.contract.inputs import Deleted, Input, RoomsAsked
from millrace.relay.contract.rpc import PassedOnAgain
from millrace.workers.pending import PendingRequests


def delete(number: RequestId) -> Deleted:
    return Deleted(number, "01.abc", None)


async def test_a_reply_given_at_once_needs_no_waiting() -> None:
    pending: PendingRequests

    def handle(asked: Input) -> None:
        assert isinstance(asked, Deleted)
        pending.reply(Reply(asked.request, 200))

    pending = PendingRequests(handle)
    first, second = await pending.ask(delete, 0), await pending.ask(delete, 0)
    assert first == Reply(RequestId(1), 200)
    assert second == Reply(RequestId(2), 200)


async def test_replies_find_their_request_and_late_ones_nobody() -> None:
    asked: list[Input] = []
    pending = PendingRequests(asked.append)
    waiting = asyncio.create_task(pending.ask(delete, 5))
    late = asyncio.create_task(pending.ask(delete, 0.01))
    assert await late is None
    pending.reply(Reply(RequestId(2), 500))
    pending.reply(Reply(RequestId(1), 204))
    pending.reply(Reply(RequestId(1), 500))
    assert await waiting == Reply(RequestId(1), 204)
    assert len(asked) == 2


async def test_a_request_is_passed_on_twice_at_most_and_only_while_it_waits() -> None:
    pending = PendingRequests(lambda asked: None)
    ours = asyncio.create_task(pending.ask(delete, 5))
    theirs = asyncio.create_task(pending.ask(delete, 5, hops=1))
    rooms = asyncio.create_task(pending.ask(RoomsAsked, 5))
    last = asyncio.create_task(pending.ask(delete, 5, hops=2))
    await asyncio.sleep(0)
    assert pending.to_pass_on(RequestId(1)) == delete(RequestId(1))
    assert pending.to_pass_on(RequestId(2)) == PassedOnAgain(delete(RequestId(2)))
    assert pending.to_pass_on(RequestId(1), hops=1) == delete(RequestId(1))
    assert pending.to_pass_on(RequestId(2), hops=1) is None
    assert pending.to_pass_on(RequestId(4)) is None
    assert pending.to_pass_on(RequestId(3)) is None
    assert pending.to_pass_on(RequestId(9)) is None
    for number in (1, 2, 3, 4):
        pending.reply(Reply(RequestId(number), 200))
    await asyncio.gather(ours, theirs, rooms, last)
    assert pending.to_pass_on(RequestId(1)) is None
