"""Which addresses the box has, and which of them clients are told."""

import errno
import socket

import pytest

from millrace.master.kernel.addresses import (
    candidates,
    likeliest_first,
    own_addresses,
    parse_answer,
    rank,
    told_in_vain,
)
from millrace.relay.contract.boot import CandidateAddress


def test_own_addresses_can_be_bound() -> None:
    for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
        addresses = own_addresses(version)
        assert addresses
        for address in addresses:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.bind((address, 0))


def test_refusal_of_the_kernel_to_list_addresses_is_an_error() -> None:
    refusal = (20).to_bytes(4, "little") + b"\x02\0\0\0" + bytes(8) + (-errno.EPERM).to_bytes(4, "little", signed=True)
    with pytest.raises(OSError, match="does not list"):
        parse_answer(refusal)


@pytest.mark.parametrize(
    ("announced", "expected"),
    [
        ((), ["10.0.0.5", "10.0.0.6", "2001:db8::5"]),
        (("203.0.113.5",), ["203.0.113.5", "2001:db8::5"]),
        (("203.0.113.5", "203.0.113.6"), ["203.0.113.5", "203.0.113.6", "2001:db8::5"]),
        (("203.0.113.5/10.0.0.5",), ["203.0.113.5", "10.0.0.6", "2001:db8::5"]),
        (("203.0.113.5/10.0.0.5", "203.0.113.9"), ["203.0.113.5", "203.0.113.9", "2001:db8::5"]),
        (("2001:db8::9/2001:DB8:0::5",), ["10.0.0.5", "10.0.0.6", "2001:db8::9"]),
    ],
)
def test_announced_addresses_stand_in_for_bound_ones(announced: tuple[str, ...], expected: list[str]) -> None:
    bound = [("10.0.0.5", 7882), ("10.0.0.6", 7882), ("2001:db8::5", 7882)]
    told = candidates(bound, announced)
    assert [each.address for each in told] == expected
    assert {each.port for each in told} == {7882}


def test_an_announced_address_remembers_which_one_it_stands_for() -> None:
    bound = [("10.0.0.5", 7882), ("10.0.0.6", 7882)]
    assert candidates(bound, ("203.0.113.5/10.0.0.6",)) == (
        CandidateAddress("10.0.0.5", 7882, "10.0.0.5"),
        CandidateAddress("203.0.113.5", 7882, "10.0.0.6"),
    )


def test_the_way_to_the_internet_comes_first_and_containers_last() -> None:
    found = [("172.17.0.1", "docker0"), ("10.8.0.1", "wg0"), ("192.168.7.2", "eth1"), ("10.20.30.5", "eth0")]
    ranked = sorted(found, key=lambda each: rank(*each, outward="10.20.30.5"))
    assert [name for _, name in ranked] == ["eth0", "eth1", "docker0", "wg0"]
    # Whatever its name, if that is the way.
    assert rank("10.8.0.1", "wg0", outward="10.8.0.1") == 0
    assert rank("fd00::5", "eth0", None) > rank("2a01:4f8::5", "eth0", None)


def test_ipv4_comes_before_ipv6_and_loopback_last(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {4: ["10.20.30.5", "172.17.0.1"], 6: ["2a01:4f8::5", "fd00::5"]}
    monkeypatch.setattr("millrace.master.kernel.addresses.own_addresses", own.__getitem__)
    bound = ["::1", "fd00::5", "2a01:4f8::5", "127.0.0.1", "172.17.0.1", "10.20.30.5"]
    ordered = [address for address, _ in likeliest_first([(each, 7882) for each in bound])]
    assert ordered == ["10.20.30.5", "172.17.0.1", "2a01:4f8::5", "fd00::5", "127.0.0.1", "::1"]


def test_addresses_that_are_told_in_vain_are_said() -> None:
    assert list(told_in_vain(["10.0.0.5"], ["0.0.0.0"], ["203.0.113.5/10.0.0.5"])) == []
    assert list(told_in_vain(["127.0.0.1"], ["127.0.0.1"], [])) == []
    (alone,) = told_in_vain(["127.0.0.1"], ["0.0.0.0"], [])
    assert "no address but loopback" in alone
    (foreign,) = told_in_vain(["10.0.0.5"], ["0.0.0.0"], ["203.0.113.5/10.0.0.6"])
    assert "does not have 10.0.0.6" in foreign
