from dataclasses import replace

import pytest

from millrace.relay.contract.commands import RestartIce
from millrace.relay.contract.ids import RequestId
from millrace.relay.contract.inputs import Patched
from tests.unit.control_kit import desk, header, offer, session_of

TRICKLE = (
    "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789abcdefghijklmn\r\n"
    "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\na=end-of-candidates\r\n"
)
RESTART = TRICKLE.replace("abcd", "wxyz")


def test_trickled_candidates_are_taken() -> None:
    worker = desk()
    reply = worker.publish()
    worker.handle(Patched(worker.number(), session_of(reply), None, header(reply, "ETag"), TRICKLE))
    assert (worker.reply().status, worker.reply().body) == (204, b"")


@pytest.mark.parametrize("star", ["*", '"*"'])
def test_an_ice_restart_is_answered_with_new_credentials_and_a_new_tag(star: str) -> None:
    worker = desk()
    reply = worker.publish()
    worker.handle(Patched(worker.number(), session_of(reply), None, star, RESTART))
    restarted = worker.reply()
    (command,) = worker.commands(RestartIce)
    assert restarted.status == 200
    assert header(restarted, "Content-Type") == "application/trickle-ice-sdpfrag"
    assert header(restarted, "ETag") != header(reply, "ETag")
    assert f"a=ice-ufrag:{command.local_ufrag}".encode() in restarted.body
    assert f"a=ice-pwd:{command.local_pwd}".encode() in restarted.body
    assert command.remote_ufrag == "wxyz"
    assert command.local_ufrag.encode() not in reply.body


def test_the_old_tag_does_not_hold_after_a_restart() -> None:
    worker = desk()
    reply = worker.publish()
    session = session_of(reply)
    worker.handle(Patched(worker.number(), session, None, "*", RESTART))
    tag = header(worker.reply(), "ETag")
    worker.handle(Patched(worker.number(), session, None, header(reply, "ETag"), RESTART))
    assert worker.reply().status == 412
    worker.handle(Patched(worker.number(), session, None, tag, RESTART))
    assert worker.reply().status == 204


def test_a_restart_whose_answer_was_lost_is_answered_again_and_the_same() -> None:
    worker = desk()
    session = session_of(worker.publish())
    worker.handle(Patched(worker.number(), session, None, "*", RESTART))
    first = worker.reply()
    worker.handle(Patched(worker.number(), session, None, "*", RESTART))
    assert worker.effects == [replace(first, request=RequestId(worker.requests))]
    worker.handle(Patched(worker.number(), session, None, "*", RESTART.replace("wxyz", "qrst")))
    assert header(worker.reply(), "ETag") != header(first, "ETag")
    assert worker.commands(RestartIce)


def test_candidates_that_are_trickled_with_a_star_after_a_restart_are_taken() -> None:
    worker = desk()
    session = session_of(worker.publish())
    worker.handle(Patched(worker.number(), session, None, "*", RESTART))
    candidate = "a=candidate:1 1 udp 2130706431 192.0.2.1 40000 typ host\r\n"
    for batch in (candidate, RESTART.replace("a=end-of-candidates\r\n", candidate), RESTART + candidate):
        worker.handle(Patched(worker.number(), session, None, "*", batch))
        assert (worker.reply().status, worker.reply().body) == (204, b"")
    worker.handle(Patched(worker.number(), session, None, "*", RESTART))
    assert worker.reply().status == 200


@pytest.mark.parametrize(
    ("if_match", "fragment", "status"),
    [
        (None, TRICKLE, 428),
        (None, RESTART, 428),
        ('"other"', TRICKLE, 412),
        ('"other"', RESTART, 412),
        ("W/{tag}", TRICKLE, 412),
        ("{tag}", RESTART, 422),
        ("*", "a=ice-ufrag:wxyz\r\n", 400),
        ("*", "", 400),
        ("*", "a=ice-ufrag:x\r\na=ice-pwd:y\r\n", 400),
        ("{tag}", "nonsense", 400),
    ],
)
def test_a_patch_that_does_not_hold_is_refused_and_the_session_lives_on(
    if_match: str | None, fragment: str, status: int
) -> None:
    worker = desk()
    reply = worker.publish()
    session, tag = session_of(reply), header(reply, "ETag")
    worker.handle(Patched(worker.number(), session, None, if_match and if_match.replace("{tag}", tag), fragment))
    assert worker.effects == [worker.reply()]
    assert worker.reply().status == status
    worker.handle(Patched(worker.number(), session, None, f'"x", {tag}', TRICKLE))
    assert worker.reply().status == 204


def test_a_star_without_new_credentials_is_no_restart() -> None:
    worker = desk()
    session = session_of(worker.publish())
    worker.handle(Patched(worker.number(), session, None, "*", TRICKLE))
    assert worker.reply().status == 204
    assert not worker.commands(RestartIce)


def test_a_viewers_session_restarts_too() -> None:
    worker = desk()
    session = session_of(worker.watch(sdp=offer(["video"], direction="recvonly")))
    worker.handle(Patched(worker.number(), session, None, "*", RESTART))
    assert worker.reply().status == 200
