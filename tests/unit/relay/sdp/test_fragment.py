from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.relay.contract.refusal import Refusal
from millrace.relay.sdp.fragment import Fragment, parse_fragment, restart_answer
from tests.unit.sdp_samples import LIMITS, LOCAL, text

PWD = "p" * 22
CREDENTIALS = ("a=ice-ufrag:EsAw", f"a=ice-pwd:{PWD}")
CANDIDATE = "a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag EsAw network-id 1"
TRICKLE = text(
    CREDENTIALS,
    ("m=audio 9 RTP/AVP 0", "a=mid:0", CANDIDATE, CANDIDATE.replace("192.0.2.1", "fd00::2"), "a=end-of-candidates"),
)


def taken(body: str) -> Fragment:
    fragment = parse_fragment(body, LIMITS)
    assert isinstance(fragment, Fragment), fragment
    return fragment


def test_a_trickle_fragment_is_read() -> None:
    assert taken(TRICKLE) == Fragment("EsAw", PWD, (("audio", "0"),), 2, True)


def test_credentials_may_stand_in_the_m_line() -> None:
    body = text(("a=group:BUNDLE 0 1", "m=video 9 UDP/TLS/RTP/SAVPF 0", "a=mid:v0", *CREDENTIALS))
    assert taken(body) == Fragment("EsAw", PWD, (("video", "v0"),), 0, False)


@pytest.mark.parametrize(
    "candidate",
    [
        "a=candidate:0 1 UDP 2122187007 192.0.2.2 48306 typ host",
        "a=candidate:2 1 TCP 1015021823 192.0.2.2 9 typ host tcptype active",
        "a=candidate:3 1 udp 1 3e5b2c9c-1111.local 1 typ srflx raddr 0.0.0.0 rport 9",
        "a=candidate:f957a2332b1715da3b0ef8ba684454eb 1 udp 2130706431 fe80::1 45822 typ host",
    ],
)
def test_every_clients_candidates_are_taken(candidate: str) -> None:
    assert taken(text(CREDENTIALS, ("m=audio 9 RTP/AVP 0", "a=mid:0", candidate))).candidates == 1


def test_only_other_credentials_restart() -> None:
    fragment = taken(TRICKLE)
    assert not fragment.restarts("EsAw", PWD)
    assert fragment.restarts("Other", PWD)
    assert fragment.restarts("EsAw", "q" * 22)
    assert not taken(text(("m=audio 9 RTP/AVP 0", "a=mid:0", CANDIDATE))).restarts("EsAw", PWD)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("", "empty-fragment"),
        ("hello", "not-sdp"),
        (text(("m=audio 9 RTP/AVP 0", "a=mid:0")), "empty-fragment"),
        (text(CREDENTIALS[:1]), "half-credentials"),
        (text(CREDENTIALS[1:]), "half-credentials"),
        (text(CREDENTIALS, ("a=ice-ufrag:Else",)), "two-credentials"),
        (text(("a=ice-ufrag:abc", CREDENTIALS[1])), "bad-ice-ufrag"),
        (text((CREDENTIALS[0], "a=ice-pwd:short")), "bad-ice-pwd"),
        (text(CREDENTIALS, ("m=audio 9 RTP/AVP 0", "a=mid:a b")), "bad-mid"),
        (text(CREDENTIALS, ("a=candidate:1 1 udp",)), "bad-candidate"),
        (text(CREDENTIALS, ("a=candidate",)), "bad-candidate"),
        (text(CREDENTIALS, ("m=audio 9 RTP/AVP 0",) * (LIMITS.m_lines + 1)), "too-many-m-lines"),
    ],
)
def test_refuses_with_its_own_reason(body: str, reason: str) -> None:
    refusal = parse_fragment(body, LIMITS)
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.reason) == (400, reason)


def test_limits_hold_for_fragments_too() -> None:
    refusal = parse_fragment(TRICKLE, replace(LIMITS, sdp_bytes=20))
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "sdp-too-large"


def test_a_restart_is_answered_with_our_new_credentials_and_the_likeliest_candidate() -> None:
    assert restart_answer(taken(TRICKLE), ("0", "1"), LOCAL).splitlines() == [
        "a=ice-lite",
        "a=ice-options:trickle ice2",
        "a=group:BUNDLE 0 1",
        "m=audio 9 UDP/TLS/RTP/SAVPF 0",
        "a=mid:0",
        "a=ice-ufrag:00abcdEFGH",
        f"a=ice-pwd:{'A' * 24}",
        "a=candidate:1 1 udp 2130706431 127.0.0.1 7882 typ host",
        "a=end-of-candidates",
    ]


def test_a_restart_of_an_unknown_mid_is_answered_for_the_sessions_first() -> None:
    body = text(CREDENTIALS, ("m=video 9 RTP/AVP 0", "a=mid:stranger"))
    assert "a=mid:video0\r\n" in restart_answer(taken(body), ("video0",), LOCAL)


def test_a_session_without_mids_is_answered_without() -> None:
    answer = restart_answer(taken(TRICKLE), ("",), LOCAL)
    assert "mid" not in answer
    assert "group" not in answer


def test_our_answer_reads_back() -> None:
    fragment = taken(restart_answer(taken(TRICKLE), ("0", "1"), LOCAL))
    assert (fragment.ufrag, fragment.pwd, fragment.candidates) == (LOCAL.ufrag, LOCAL.pwd, 1)


@settings(max_examples=200, deadline=None)
@given(st.text() | st.lists(st.sampled_from(TRICKLE.split("\r\n")) | st.text(max_size=30)).map("\r\n".join))
def test_any_text_gives_a_value(body: str) -> None:
    assert isinstance(parse_fragment(body, LIMITS), Fragment | Refusal)
