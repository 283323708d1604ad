"""Requests that wait for the hook, from the POST to the answer."""

from millrace.relay.config.model import AuthConfig, Config
from millrace.relay.contract.access import Action, HookFailure, HookOutcome, HookQuestion, HookReplied
from millrace.relay.contract.effects import AskHook, Reply
from millrace.relay.contract.inputs import Deleted, HookAnswered, Offered, RoomsListed
from millrace.relay.contract.protocol import Protocol
from tests.unit.control_kit import Desk, body, desk, header, offer, session_of

HOOKED = Config(auth=AuthConfig(hook="https://app.example/"))


def knock(worker: Desk, room: str = "hall", token: str | None = "opaque") -> HookQuestion:
    """Publishes; the hook is asked, and nobody is answered yet."""
    worker.handle(Offered(worker.number(), Protocol.WHIP, room, token, offer(), None, "192.0.2.1"))
    (ask,) = worker.effects
    assert isinstance(ask, AskHook)
    return ask.question


def answer(worker: Desk, question: HookQuestion, answer: HookReplied | HookFailure) -> Reply:
    worker.handle(HookAnswered(question, answer))
    return worker.reply()


def test_whom_the_hook_grants_it_publishes_under_the_hooks_name() -> None:
    worker = desk(HOOKED)
    question = knock(worker)
    assert question == HookQuestion(Action.PUBLISH, "hall", "opaque", "192.0.2.1")
    reply = answer(worker, question, HookReplied(200, b'{"identity": "bob"}'))
    assert reply.status == 201
    (session,) = worker.control.sessions.all()
    assert session.participant == "bob"
    worker.handle(Deleted(worker.number(), session_of(reply), None))
    assert worker.reply().status == 200, "the session's id is its client's alone"


def test_a_refusal_a_timeout_and_a_dead_hook_are_three_answers() -> None:
    worker, seen = desk(HOOKED), []
    cases: tuple[HookReplied | HookFailure, ...] = (
        HookReplied(403, b'{"reason": "banned"}'),
        HookOutcome.TIMEOUT,
        HookOutcome.UNREACHABLE,
        HookReplied(200, b"garbage"),
    )
    for number, case in enumerate(cases):
        reply = answer(worker, knock(worker, f"room{number}"), case)
        comes_again = [value for name, value in reply.headers if name == "Retry-After"]
        seen.append((reply.status, body(reply)["type"].rpartition(":")[2], bool(comes_again)))
    assert seen == [
        (403, "hook-refused", False),
        (504, "hook-timeout", True),
        (502, "hook-unreachable", True),
        (502, "hook-unreadable", True),
    ]
    counted = {name: value for name, value in worker.control.counters.values.items() if "hook_answers" in name}
    assert set(counted.values()) == {0, 1}
    assert [name for name, value in counted.items() if value == 0] == ['millrace_hook_answers_total{outcome="granted"}']


def test_a_hook_that_says_401_has_the_client_asked_for_a_token() -> None:
    worker = desk(HOOKED)
    reply = answer(worker, knock(worker, token=None), HookReplied(401, b"{}"))
    assert (reply.status, header(reply, "WWW-Authenticate")) == (401, "Bearer")


def test_all_who_ask_the_same_wait_for_one_answer_and_the_next_waits_for_none() -> None:
    worker = desk(HOOKED)
    question = knock(worker)
    worker.handle(Offered(worker.number(), Protocol.WHIP, "hall", "opaque", offer(), None, "192.0.2.1"))
    assert worker.effects == []
    worker.handle(HookAnswered(question, HookReplied(200, b"{}")))
    assert [reply.status for reply in worker.all(Reply)] == [201, 201]
    worker.handle(Offered(worker.number(), Protocol.WHIP, "hall", "opaque", offer(), None, "192.0.2.1"))
    assert worker.reply().status == 201


def test_what_the_hook_grants_is_still_checked_like_anybodys() -> None:
    worker = desk(HOOKED)
    cameras = HookReplied(200, b'{"can_publish_sources": ["camera"]}')
    reply = answer(worker, knock(worker), cameras)
    assert (reply.status, body(reply)["title"]) == (403, "source not granted")


def test_the_list_waits_for_the_hook_and_has_the_rooms_that_it_names() -> None:
    worker = desk(HOOKED)
    for room in ("a", "b-1", "c"):
        answer(worker, knock(worker, room), HookReplied(200, b"{}"))
    worker.handle(RoomsListed(worker.number(), "opaque", "192.0.2.1"))
    (ask,) = worker.all(AskHook)
    worker.handle(HookAnswered(ask.question, HookReplied(200, b'{"rooms": ["a", "b-*"]}')))
    assert [room["name"] for room in body(worker.reply())] == ["a", "b-1"]
