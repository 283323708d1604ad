import asyncio

from millrace.relay.contract.effects import Reply
from millrace.relay.contract.ids import RequestId
from millrace.relay.contract.inputs import Deleted, Input, RoomsAsked
from millrace.relay.contract.rpc import PassedOnAgain
from millrace.workers.pending import Desk


def delete(number: RequestId) -> Deleted:
    return Deleted(number, "01.abc", None)


async def test_a_reply_given_at_once_needs_no_waiting() -> None:
    desk: Desk

    def handle(asked: Input) -> None:
        assert isinstance(asked, Deleted)
        desk.reply(Reply(asked.request, 200))

    desk = Desk(handle)
    first, second = await desk.ask(delete, 0), await desk.ask(delete, 0)
    assert first == Reply(RequestId(1), 200)
    assert second == Reply(RequestId(2), 200)


async def test_replies_find_their_request_and_late_ones_nobody() -> None:
    asked: list[Input] = []
    desk = Desk(asked.append)
    waiting = asyncio.create_task(desk.ask(delete, 5))
    late = asyncio.create_task(desk.ask(delete, 0.01))
    assert await late is None
    desk.reply(Reply(RequestId(2), 500))
    desk.reply(Reply(RequestId(1), 204))
    desk.reply(Reply(RequestId(1), 500))
    assert await waiting == Reply(RequestId(1), 204)
    assert len(asked) == 2


async def test_a_request_is_passed_on_twice_at_most_and_only_while_it_waits() -> None:
    desk = Desk(lambda asked: None)
    ours = asyncio.create_task(desk.ask(delete, 5))
    theirs = asyncio.create_task(desk.ask(delete, 5, hops=1))
    rooms = asyncio.create_task(desk.ask(RoomsAsked, 5))
    last = asyncio.create_task(desk.ask(delete, 5, hops=2))
    await asyncio.sleep(0)
    assert desk.to_pass_on(RequestId(1)) == delete(RequestId(1))
    assert desk.to_pass_on(RequestId(2)) == PassedOnAgain(delete(RequestId(2)))
    assert desk.to_pass_on(RequestId(1), hops=1) == delete(RequestId(1))
    assert desk.to_pass_on(RequestId(2), hops=1) is None
    assert desk.to_pass_on(RequestId(4)) is None
    assert desk.to_pass_on(RequestId(3)) is None
    assert desk.to_pass_on(RequestId(9)) is None
    for number in (1, 2, 3, 4):
        desk.reply(Reply(RequestId(number), 200))
    await asyncio.gather(ours, theirs, rooms, last)
    assert desk.to_pass_on(RequestId(1)) is None
