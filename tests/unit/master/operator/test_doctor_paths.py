"""What `millrace doctor --url` reads of an answer, and how it judges the ways that it tried."""

import pytest

from millrace.master.operator.doctor import Verdict
from millrace.master.operator.doctor_paths import Tried, judge, parse_answer
from millrace.relay.contract.boot import CandidateAddress
from millrace.relay.negotiation.answering import host_candidates

SDP = [
    "a=ice-ufrag:00abcdef",
    "a=ice-pwd:secret-of-the-session",
    *(
        f"a={each.line()}"
        for each in host_candidates(
            [
                CandidateAddress(host, 7882, host, protocol)
                for protocol in ("udp", "tcp")
                for host in ("192.0.2.1", "::1")
            ]
        )
    ),
]
LINKS = (
    '<turn:turn.example:3478?transport=tcp>; rel="ice-server"; username="1:a"; credential="b"; '
    'credential-type="password", <turns:[2001:db8::1]>; rel="ice-server"; username="u"; credential="c"; '
    'credential-type="password", <stun:stun.example>; rel="ice-server"'
)


def test_an_answers_ways_are_read() -> None:
    answer = parse_answer("\r\n".join(SDP), LINKS)
    assert (answer.ufrag, answer.pwd) == ("00abcdef", "secret-of-the-session")
    assert answer.udp == answer.tcp == (("192.0.2.1", 7882), ("::1", 7882))
    first, second = answer.turn
    assert first == {
        "scheme": "turn",
        "host": "turn.example",
        "port": "3478",
        "transport": "tcp",
        "username": "1:a",
        "credential": "b",
    }
    assert (second["scheme"], second["host"], second["port"], second["transport"]) == (
        "turns",
        "[2001:db8::1]",
        None,
        None,
    )


@pytest.mark.parametrize(
    ("udp", "tcp", "turn", "expected"),
    [
        ([0.01], [0.02], [], "ok ok ok"),
        ([None], [0.02], [], "warn ok ok"),
        ([None, 0.5], [None], [None], "ok warn warn"),
        ([None], [None], [], "FAIL FAIL FAIL"),
        ([], [0.1], [0.1], "ok ok ok"),
    ],
)
def test_one_way_is_enough(
    udp: list[float | None], tcp: list[float | None], turn: list[float | None], expected: str
) -> None:
    tried = {
        way: [Tried("there", seconds) for seconds in many] for way, many in (("UDP", udp), ("TCP", tcp), ("TURN", turn))
    }
    assert [each.verdict for each in judge(tried)] == [Verdict(each) for each in expected.split()]


def test_why_a_way_is_closed_is_said() -> None:
    udp, tcp, _ = judge({"UDP": [Tried("a:1", None)], "TCP": [Tried("a:1", None, "Connection refused")], "TURN": []})
    assert udp.detail == "a:1: no answer within 3 s"
    assert tcp.detail == "a:1: Connection refused"
