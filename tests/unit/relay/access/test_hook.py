"""What the hook's answers mean, how long they hold, and who waits for one."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.relay.access.hook import (
    FAILURE_SECONDS,
    GRANT_SECONDS,
    MAX_ANSWERS,
    MAX_QUESTIONS,
    MAX_WAITING,
    REFUSAL_SECONDS,
    Hook,
    HookGrant,
    read_answer,
)
from millrace.relay.contract.access import Action, HookFailure, HookOutcome, HookQuestion, HookReplied
from millrace.relay.contract.ids import RequestId
from millrace.relay.contract.inputs import Offered
from millrace.relay.contract.protocol import Protocol
from millrace.relay.contract.refusal import Refusal

PUBLISH = HookQuestion(Action.PUBLISH, "hall", "t", "192.0.2.1")
WATCH = HookQuestion(Action.WATCH, "hall", "t", "192.0.2.1", "ann")
LIST = HookQuestion(Action.LIST, "", "t", "192.0.2.1")
REQUEST = Offered(RequestId(1), Protocol.WHEP, "hall", "t", "v=0", None)


def said(status: int, **fields: Any) -> HookReplied:
    return HookReplied(status, json.dumps(fields).encode())


def test_two_hundred_with_json_grants_what_it_does_not_forbid() -> None:
    assert read_answer(PUBLISH, said(200)) == HookGrant()
    assert read_answer(WATCH, said(200, can_publish=False, name="ignored")) == HookGrant()
    granted = said(200, can_publish=True, identity="ann", can_publish_sources=["Camera"], rooms=["a", "b-*"])
    assert read_answer(PUBLISH, granted) == HookGrant("ann", ("camera",), ("a", "b-*"))
    assert read_answer(LIST, said(200, can_publish=False, can_subscribe=False)) == HookGrant()


@pytest.mark.parametrize(
    ("question", "answer", "status", "detail"),
    [
        (PUBLISH, said(403, reason="banned"), 403, "banned"),
        (PUBLISH, said(401, reason="log in"), 401, "log in"),
        (PUBLISH, HookReplied(403, b"<html>"), 403, "The server that decides who may come in refuses this."),
        (PUBLISH, said(403, reason=7), 403, "The server that decides who may come in refuses this."),
        (PUBLISH, said(200, can_publish=False, reason="viewers only"), 403, "viewers only"),
        (WATCH, said(200, can_subscribe=False), 403, "The server that decides who may come in refuses this."),
        (PUBLISH, said(403, reason="two\nlines\0"), 403, "twolines"),
        (PUBLISH, said(403, reason="x" * 5000), 403, "x" * 200),
    ],
)
def test_a_refusal_tells_the_client_the_hooks_reason(
    question: HookQuestion, answer: HookReplied, status: int, detail: str
) -> None:
    assert read_answer(question, answer) == Refusal(status, "hook-refused", detail)


@pytest.mark.parametrize(
    "answer",
    [
        HookReplied(200, b""),
        HookReplied(200, b"yes"),
        HookReplied(200, b"[]"),
        HookReplied(200, b"\xff"),
        HookReplied(200, b"[" * 16000),
        HookReplied(204, b""),
        HookReplied(302, b"{}"),
        HookReplied(404, b"{}"),
        HookReplied(500, b'{"reason": "a secret of the backend"}'),
        said(200, can_publish="yes"),
        said(200, can_subscribe=1),
        said(200, identity=7),
        said(200, identity=""),
        said(200, identity="two\nlines"),
        said(200, identity="a" * 257),
        said(200, can_publish_sources="camera"),
        said(200, rooms="a"),
        said(200, rooms=["a**"]),
        said(200, rooms=[1]),
    ],
)
def test_what_says_neither_yes_nor_no_lets_nobody_in(answer: HookReplied) -> None:
    refused = read_answer(PUBLISH, answer)
    assert isinstance(refused, Refusal)
    assert (refused.status, refused.reason) == (502, "hook-unreadable")
    assert "secret" not in refused.detail


@given(
    st.integers(100, 599), st.binary(max_size=200) | st.text(max_size=100).map(lambda text: json.dumps(text).encode())
)
def test_no_answer_is_a_defect(status: int, body: bytes) -> None:
    assert read_answer(PUBLISH, HookReplied(status, body)) is not None


@pytest.mark.parametrize(
    ("failure", "status", "reason"),
    [
        (HookOutcome.TIMEOUT, 504, "hook-timeout"),
        (HookOutcome.UNREACHABLE, 502, "hook-unreachable"),
        (HookOutcome.UNREADABLE, 502, "hook-unreadable"),
    ],
)
def test_each_failure_is_an_answer_of_its_own(failure: HookFailure, status: int, reason: str) -> None:
    refused = read_answer(PUBLISH, failure)
    assert isinstance(refused, Refusal)
    assert (refused.status, refused.reason) == (status, reason)


@pytest.mark.parametrize(
    ("answer", "outcome", "seconds"),
    [
        (said(200), HookOutcome.GRANTED, GRANT_SECONDS),
        (said(403), HookOutcome.REFUSED, REFUSAL_SECONDS),
        (said(200, can_publish=False), HookOutcome.REFUSED, REFUSAL_SECONDS),
        (HookReplied(500, b""), HookOutcome.UNREADABLE, FAILURE_SECONDS),
        (HookOutcome.TIMEOUT, HookOutcome.TIMEOUT, FAILURE_SECONDS),
        (HookOutcome.UNREACHABLE, HookOutcome.UNREACHABLE, FAILURE_SECONDS),
    ],
)
def test_an_answer_holds_for_a_while_and_for_its_question_alone(
    answer: HookReplied | HookFailure, outcome: HookOutcome, seconds: float
) -> None:
    hook = Hook()
    assert hook.decision(PUBLISH, 100.0) is None
    assert hook.hold(PUBLISH, REQUEST) is True
    assert hook.take(PUBLISH, answer, 100.0) == (outcome, [REQUEST])
    assert hook.decision(PUBLISH, 100.0 + seconds - 0.01) == read_answer(PUBLISH, answer)
    assert hook.decision(PUBLISH, 100.0 + seconds) is None
    assert hook.decision(WATCH, 100.0) is None


def test_one_question_is_asked_once_for_all_who_wait() -> None:
    hook = Hook()
    assert hook.hold(WATCH, REQUEST) is True
    assert hook.hold(WATCH, REQUEST) is False
    assert hook.take(WATCH, said(200), 0.0)[1] == [REQUEST, REQUEST]
    assert hook.hold(WATCH, REQUEST) is True


def question(number: int) -> HookQuestion:
    return HookQuestion(Action.WATCH, "hall", str(number), "")


def test_questions_under_way_and_those_who_wait_are_bounded() -> None:
    hook = Hook()
    for number in range(MAX_QUESTIONS):
        assert hook.hold(question(number), REQUEST) is True
    refused = hook.hold(question(MAX_QUESTIONS), REQUEST)
    assert isinstance(refused, Refusal)
    assert (refused.status, refused.reason) == (503, "hook-busy")
    for _ in range(MAX_WAITING - MAX_QUESTIONS):
        assert hook.hold(question(0), REQUEST) is False
    assert isinstance(hook.hold(question(0), REQUEST), Refusal)
    assert len(hook.take(question(0), HookOutcome.TIMEOUT, 0.0)[1]) == MAX_WAITING - MAX_QUESTIONS + 1
    assert hook.hold(question(MAX_QUESTIONS), REQUEST) is True


def test_answers_remembered_are_bounded() -> None:
    hook = Hook()
    for number in range(MAX_ANSWERS + 1):
        hook.take(question(number), said(200), 0.0)
    assert hook.decision(question(0), 0.0) is None
    assert hook.decision(question(1), 0.0) == HookGrant()
