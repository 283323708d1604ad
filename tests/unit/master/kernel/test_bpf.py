"""The assembler, against the encoding of RFC 9669."""

import pytest

from millrace.master.kernel.bpf import FP, Alu, Assembler, Jump, Size
from millrace.master.kernel.steering import Steered, assemble, flow_key


def test_instructions_have_the_encoding_of_the_standard() -> None:
    a = Assembler()
    a.register(Alu.MOVE, 6, 1)
    a.number(Alu.ADD, 3, -4)
    a.load(Size.HALF, 1, FP, -8)
    a.store(Size.WORD, FP, -4, 8)
    a.store_number(Size.DOUBLE, FP, -24, 0xFFFF)
    a.big_endian_16(1)
    a.map(1, 5)
    a.call(82)
    a.exit()
    assert a.assemble().hex(" ", 8).split() == [
        "bf16000000000000",
        "07030000fcffffff",
        "69a1f8ff00000000",
        "638afcff00000000",
        "7a0ae8ffffff0000",
        "dc01000010000000",
        "1811000005000000",
        "0000000000000000",
        "8500000052000000",
        "9500000000000000",
    ]


def test_jumps_reach_their_labels_forwards_and_backwards() -> None:
    a = Assembler()
    a.label("start")
    a.jump_if(Jump.EQUAL, 1, 0x80000000, "end")
    a.jump_if_null(0, "end")
    a.jump("start")
    a.label("end")
    a.exit()
    assert a.assemble().hex(" ", 8).split()[:3] == ["1601020000000080", "1500010000000000", "0500fdff00000000"]


def test_label_cannot_stand_twice() -> None:
    a = Assembler()
    a.label("here")
    with pytest.raises(AssertionError):
        a.label("here")


def test_steering_program_is_small_enough_for_every_kernel() -> None:
    assert len(assemble(3, Steered(4, 5, 6))) // 8 <= 4096


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "00000000000000000000ffffc0000201" + "1234" + "0000"),
        ("2001:db8::1", "20010db8000000000000000000000001" + "1234" + "0000"),
    ],
)
def test_flow_key_is_a_mapped_address_and_a_port_in_network_order(address: str, key: str) -> None:
    assert flow_key(address, 0x1234).hex() == key
