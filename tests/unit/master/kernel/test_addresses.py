"""Which addresses the box has, and which of them clients are told."""

import errno
import socket

import pytest

from millrace.master.kernel.addresses import candidates, own_addresses, parse_answer
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
    assert candidates(bound, announced) == tuple(CandidateAddress(address, 7882) for address in expected)
