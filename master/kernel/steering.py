"""The BPF program that has the kernel deliver each datagram to the worker that owns its session. Correctness must never
depend on it: a datagram that it does not know goes where the kernel's hash says, and that worker hands it over. Read
next: `master/kernel/bpf.py`, the assembler.

    STUN binding request  -> the slot in the first two digits of USERNAME, which begins with the server's ufrag
    any other datagram    -> the slot that the flow map has for its source address; that slot's worker wrote it
    neither, or the slot has no worker -> the kernel's hash over addresses and ports, among the open slots
    that one is down      -> the hash once more, among the open slots that are not
"""

import os
import socket
import struct
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from millrace.master.kernel.bpf import FP, Alu, Assembler, Jump, MapType, Size, create_map, load_program, update_map

_PROGRAM_TYPE = 21
"""BPF_PROG_TYPE_SK_REUSEPORT."""
_SO_ATTACH_REUSEPORT_EBPF = 52
"""From asm-generic/socket.h; Python does not have it."""
_MAP_LOOKUP, _LOAD_BYTES, _LOAD_BYTES_RELATIVE, _SELECT = 1, 26, 68, 82
"""Helpers of the kernel, `enum bpf_func_id`."""
_FROM_NETWORK_HEADER = 1
_PASS = 1
_ETHERTYPE_OFFSET, _HASH_OFFSET = 20, 32
"""Offsets of `eth_protocol` and `hash` in the program's context, `struct sk_reuseport_md`."""

_ATTRIBUTES_LOOKED_AT = 4
"""How many attributes are searched for USERNAME; without it there, the flow map decides. Browsers and libraries put it
first or second, and more steps would cost processor time for every forged request."""

# The stack, from the frame pointer down: helpers of the kernel write to memory only.
_SLOT = -4  # u32
_KEY = -24  # 20 bytes: source address (16, IPv4 mapped), source port (2), zero (2)
_KEY_PORT = -8
_ATTRIBUTE = -32  # 6 bytes: type (2), length (2), first two bytes of the value
_HEADER = -48  # 16 bytes: UDP header (8), STUN type (2), length (2), magic cookie (4)
_LIVING = -52  # u32
_OPEN = -56  # u32
_DOWN = -64  # u64: a bit for each slot that is down
_UP = -68  # u32: how many open slots are not down
_INDEX = -72  # u32

_MASK, _COUNT, _FIRST = 0, 1, 2
"""Where what lies in the map of `set_down`: the bits, how many open slots are not down, and which these are."""
_SECOND = 0x85EBCA6B
"""MurmurHash3's first constant: it makes another hash of the kernel's."""
_MOST_SLOTS = 64


@dataclass(frozen=True, slots=True)
class Steered:
    """Descriptors of the maps that the program reads."""

    flow_map: int
    """Its keys are as `flow_key` makes them, its values slots, u32 in this machine's byte order."""
    eligible: int
    """The map that `set_eligible` fills."""
    down: int | None
    """The map that `set_down` fills; None when a master of an earlier release has attached its program, which has none.
    It cannot be replaced: the kernel lets a socket be in one array only, and that program holds it.
    """

    def close(self) -> None:
        """Closes our descriptors; the program holds the maps by itself."""
        for each in (self.flow_map, self.eligible, self.down):
            if each is not None:
                os.close(each)


def steer(groups: Sequence[Sequence[socket.socket]], flows: int) -> Steered:
    """Steers each group by one flow map for `flows` addresses. The sockets of a group share an address and stand in
    slot order. Raises OSError when the kernel does not allow it (needs CAP_BPF and CAP_NET_ADMIN, or root).
    """
    # LRU, as a worker that dies leaves its entries behind. Twice as many entries as addresses, as an LRU map begins to
    # evict before it is full.
    flow_map = create_map(MapType.LRU_HASH, 20, 4, 2 * flows, "millrace_flows")
    try:
        eligible = create_map(MapType.ARRAY, 4, 8, 1, "millrace_counts")
        down = create_map(MapType.ARRAY, 4, 8, _FIRST + _MOST_SLOTS, "millrace_down")
    except OSError:
        os.close(flow_map)
        raise
    steered = Steered(flow_map, eligible, down)
    try:
        set_eligible(eligible, len(groups[0]), len(groups[0]))
        for group in groups:
            _attach(group, steered)
    except OSError:
        steered.close()
        raise
    return steered


def steer_too(groups: Sequence[Sequence[socket.socket]], steered: Steered) -> None:
    """Steers more groups by the maps of those that are steered already. Raises OSError."""
    for group in groups:
        _attach(group, steered)


def set_eligible(eligible: int, opened: int, living: int) -> None:
    """Sets how many slots, from the first, get datagrams that name no slot (`opened`), and how many get those that name
    them (`living`). Raises OSError.
    """
    update_map(eligible, struct.pack("=I", 0), struct.pack("=II", living, opened))


def set_down(descriptor: int, opened: int, down: Collection[int]) -> None:
    """Sets which slots get nothing. What would go to one of them goes to the others of the first `opened`, of which not
    all may be down. Raises OSError.
    """
    up = [slot for slot in range(opened) if slot not in down]
    words = {_FIRST + number: slot for number, slot in enumerate(up)}
    # The bits last: the program may run in between.
    for at, word in {**words, _COUNT: len(up), _MASK: sum(1 << slot for slot in down)}.items():
        update_map(descriptor, struct.pack("=I", at), struct.pack("=Q", word))


def flow_key(address: str, port: int) -> bytes:
    """Returns the flow map's key for a source: address as IPv6 in network order, port in network order, two zeros."""
    parsed = ip_address(address)
    packed = parsed.packed if parsed.version == 6 else bytes(10) + b"\xff\xff" + parsed.packed
    return packed + struct.pack("!HH", port, 0)


def _attach(group: Sequence[socket.socket], steered: Steered) -> None:
    sockets = create_map(MapType.REUSEPORT_SOCKARRAY, 4, 8, len(group), "millrace_slots")
    try:
        for slot, member in enumerate(group):
            update_map(sockets, struct.pack("=I", slot), struct.pack("=Q", member.fileno()))
        program = load_program(_PROGRAM_TYPE, assemble(sockets, steered), "millrace_steer")
        try:
            # A program that is attached to one socket serves the whole group.
            group[0].setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_EBPF, struct.pack("=i", program))
        finally:
            os.close(program)
    finally:
        # The group holds the program, and the program holds its maps.
        os.close(sockets)


def assemble(sockets: int, steered: Steered) -> bytes:
    """Returns the program for one group; `sockets` is the descriptor of the group's socket array."""
    a = Assembler()
    assert steered.down is not None, "made before its program"
    a.register(Alu.MOVE, 6, 1)  # r6: the context, kept over calls
    _load_eligible(a, steered.eligible)
    _load_down(a, steered.down)
    _stun(a, sockets)
    a.label("flow")
    _flow(a, sockets, steered.flow_map)
    a.label("hash")
    _hash(a, sockets, steered.down)
    a.label("pass")
    a.number(Alu.MOVE, 0, _PASS)
    a.exit()
    return a.assemble()


def _load_eligible(a: Assembler, eligible: int) -> None:
    """Copies the numbers of living and of open slots to the stack."""
    a.store_number(Size.WORD, FP, _SLOT, 0)
    a.map(1, eligible)
    _stack_address(a, 2, _SLOT)
    a.call(_MAP_LOOKUP)
    a.jump_if_null(0, "pass")
    for offset, to in ((0, _LIVING), (4, _OPEN)):
        a.load(Size.WORD, 1, 0, offset)
        a.store(Size.WORD, FP, to, 1)


def _load_down(a: Assembler, down: int) -> None:
    """Copies to the stack which slots are down, and how many open ones are not."""
    for at, size, to in ((_MASK, Size.DOUBLE, _DOWN), (_COUNT, Size.WORD, _UP)):
        _look_up(a, down, at)
        a.load(Size.DOUBLE, 1, 0, 0)
        a.store(size, FP, to, 1)


def _look_up(a: Assembler, array: int, index: int | None) -> None:
    """r0 = where the array has the entry; with None, the entry whose index stands on the stack."""
    if index is not None:
        a.store_number(Size.WORD, FP, _INDEX, index)
    a.map(1, array)
    _stack_address(a, 2, _INDEX)
    a.call(_MAP_LOOKUP)
    a.jump_if_null(0, "pass")


def _stun(a: Assembler, sockets: int) -> None:
    """Selects by USERNAME (RFC 8489 sections 5 and 14); any other datagram goes on to `flow`."""
    _read(a, 0, _HEADER, 16, "flow")
    a.load(Size.HALF, 1, FP, _HEADER + 8)
    a.jump_if(Jump.NOT_EQUAL, 1, _as_loaded("0001"), "flow")
    a.load(Size.WORD, 1, FP, _HEADER + 12)
    a.jump_if(Jump.NOT_EQUAL, 1, _as_loaded("2112a442"), "flow")
    a.number(Alu.MOVE, 7, 8 + 20)  # r7: offset of the attribute, from the UDP header on
    for _ in range(_ATTRIBUTES_LOOKED_AT):
        _read(a, None, _ATTRIBUTE, 6, "flow")
        a.load(Size.HALF, 1, FP, _ATTRIBUTE)
        a.jump_if(Jump.EQUAL, 1, _as_loaded("0006"), "username")
        # The header is four bytes, and a value is padded to a multiple of four.
        a.load(Size.HALF, 1, FP, _ATTRIBUTE + 2)
        a.big_endian_16(1)
        a.number(Alu.ADD, 1, 4 + 3)
        a.number(Alu.AND, 1, ~3)
        a.register(Alu.ADD, 7, 1)
    a.jump("flow")
    a.label("username")
    _hex_digit(a, 8, _ATTRIBUTE + 4, "first")
    _hex_digit(a, 9, _ATTRIBUTE + 5, "second")
    a.number(Alu.SHIFT_LEFT, 8, 4)
    a.register(Alu.OR, 8, 9)
    _select(a, sockets, 8, "flow")
    a.jump_if(Jump.EQUAL, 0, 0, "pass")


def _flow(a: Assembler, sockets: int, flow_map: int) -> None:
    """Selects by the source address; an unknown one goes on to `hash`."""
    for offset, size in ((0, Size.DOUBLE), (8, Size.DOUBLE), (16, Size.WORD)):
        a.store_number(size, FP, _KEY + offset, 0)
    _read(a, 0, _KEY_PORT, 2, "hash")
    a.load(Size.WORD, 1, 6, _ETHERTYPE_OFFSET)
    a.jump_if(Jump.EQUAL, 1, _as_loaded("86dd"), "ipv6")
    a.jump_if(Jump.NOT_EQUAL, 1, _as_loaded("0800"), "hash")
    a.store_number(Size.HALF, FP, _KEY + 10, 0xFFFF)
    _read_network_header(a, 12, _KEY + 12, 4)
    a.jump("lookup")
    a.label("ipv6")
    _read_network_header(a, 8, _KEY, 16)
    a.label("lookup")
    a.map(1, flow_map)
    _stack_address(a, 2, _KEY)
    a.call(_MAP_LOOKUP)
    a.jump_if_null(0, "hash")
    a.load(Size.WORD, 8, 0, 0)
    _select(a, sockets, 8, "hash")
    a.jump_if(Jump.EQUAL, 0, 0, "pass")


def _hash(a: Assembler, sockets: int, down: int) -> None:
    """Selects as the kernel would if the group had only the sockets of open slots; once more if that slot is down, so
    that what goes to the others goes there still.
    """
    _scale_hash(a, _OPEN)
    _select(a, sockets, 8, "again")
    a.jump("pass")
    a.label("again")
    _scale_hash(a, _UP, _SECOND)
    a.number(Alu.ADD, 8, _FIRST)
    a.store(Size.WORD, FP, _INDEX, 8)
    _look_up(a, down, None)
    a.load(Size.DOUBLE, 8, 0, 0)
    # If that socket cannot be selected, the kernel's own choice stands.
    _select(a, sockets, 8, "pass")


def _scale_hash(a: Assembler, count: int, factor: int = 1) -> None:
    """r8 = a number below the one on the stack, made of the kernel's hash times a factor."""
    a.load(Size.WORD, 8, 6, _HASH_OFFSET)
    if factor != 1:
        a.number(Alu.MULTIPLY, 8, factor)
        a.number(Alu.SHIFT_LEFT, 8, 32)
        a.number(Alu.SHIFT_RIGHT, 8, 32)
    a.load(Size.WORD, 1, FP, count)
    a.register(Alu.MULTIPLY, 8, 1)
    a.number(Alu.SHIFT_RIGHT, 8, 32)


def _select(a: Assembler, sockets: int, slot: int, otherwise: str) -> None:
    """r0 = 0 when the socket of the slot in register `slot` was selected; without a worker there, on to `otherwise`."""
    a.load(Size.WORD, 1, FP, _LIVING)
    a.jump_if_register(Jump.AT_LEAST, slot, 1, otherwise)
    a.load(Size.DOUBLE, 1, FP, _DOWN)
    a.register(Alu.SHIFT_RIGHT, 1, slot)
    a.number(Alu.AND, 1, 1)
    a.jump_if(Jump.EQUAL, 1, 1, otherwise)
    a.store(Size.WORD, FP, _SLOT, slot)
    a.register(Alu.MOVE, 1, 6)
    a.map(2, sockets)
    _stack_address(a, 3, _SLOT)
    a.number(Alu.MOVE, 4, 0)
    a.call(_SELECT)


def _read(a: Assembler, offset: int | None, to: int, length: int, otherwise: str) -> None:
    """Copies from the datagram, counted from its UDP header, to the stack; `offset` None stands for r7."""
    a.register(Alu.MOVE, 1, 6)
    if offset is None:
        a.register(Alu.MOVE, 2, 7)
    else:
        a.number(Alu.MOVE, 2, offset)
    _stack_address(a, 3, to)
    a.number(Alu.MOVE, 4, length)
    a.call(_LOAD_BYTES)
    a.jump_if(Jump.NOT_EQUAL, 0, 0, otherwise)


def _read_network_header(a: Assembler, offset: int, to: int, length: int) -> None:
    a.register(Alu.MOVE, 1, 6)
    a.number(Alu.MOVE, 2, offset)
    _stack_address(a, 3, to)
    a.number(Alu.MOVE, 4, length)
    a.number(Alu.MOVE, 5, _FROM_NETWORK_HEADER)
    a.call(_LOAD_BYTES_RELATIVE)
    a.jump_if(Jump.NOT_EQUAL, 0, 0, "hash")


def _hex_digit(a: Assembler, register: int, at: int, name: str) -> None:
    """`register` = the value of a lowercase hex digit; anything else goes to `flow`."""
    a.load(Size.BYTE, register, FP, at)
    a.number(Alu.SUB, register, ord("0"))
    a.jump_if(Jump.LESS, register, 10, f"{name}_known")
    a.number(Alu.SUB, register, ord("a") - ord("0"))
    # A smaller character has wrapped around to a large number.
    a.jump_if(Jump.GREATER, register, 5, "flow")
    a.number(Alu.ADD, register, 10)
    a.label(f"{name}_known")


def _stack_address(a: Assembler, register: int, offset: int) -> None:
    a.register(Alu.MOVE, register, FP)
    a.number(Alu.ADD, register, offset)


def _as_loaded(digits: str) -> int:
    """Returns the number that a load on this machine makes of these bytes of the wire."""
    return int.from_bytes(bytes.fromhex(digits), sys.byteorder)
