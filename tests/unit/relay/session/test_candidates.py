"""Which candidates a client is told, in which order."""

from millrace.relay.contract.boot import CandidateAddress
from millrace.relay.session.opening import Candidates


def test_the_address_that_was_reached_comes_first_and_tcp_after_all_of_udp() -> None:
    told = [
        CandidateAddress(each, 7882, each, protocol) for protocol in ("udp", "tcp") for each in ("10.0.0.1", "10.0.0.2")
    ]
    candidates = Candidates(told)
    for reached, expected in ((None, "1212"), ("10.0.0.1", "1212"), ("10.0.0.2", "2121"), ("10.0.0.3", "1212")):
        found = candidates.at(reached)
        assert "".join(each.address[-1] for each in found) == expected
        assert [each.protocol for each in found] == ["udp", "udp", "tcp", "tcp"]
        assert [each.priority for each in found] == sorted((each.priority for each in found), reverse=True)
