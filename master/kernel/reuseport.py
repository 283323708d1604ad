"""The classic BPF program that spreads new connections and flows over the first sockets of a SO_REUSEPORT group, those
of the open slots, without those that are down. It needs no privilege, so it serves the listeners, and media where the
kernel does not steer. It must never know what a slot is. Read next: `master/kernel/eligible.py`, which says when.

    (source address ^ source port) * a constant, its upper half modulo `opened`: one flow always has one socket
    that one is down: * another constant, its upper half modulo how many are not, so that no other flow moves
"""

import ctypes
import socket
import struct
from collections.abc import Collection, Sequence

_SO_ATTACH_REUSEPORT_CBPF = 51
"""From asm-generic/socket.h; Python does not have it."""
_LOAD_WORD, _LOAD_HALF, _XOR_X, _MULTIPLY, _SHIFT_RIGHT, _MODULO, _TO_X, _RETURN_A = (
    *(0x20, 0x28, 0xAC, 0x24, 0x74, 0x94, 0x07, 0x16),
)
_STORE, _LOAD_STORED, _JUMP_IF_EQUAL, _RETURN = 0x02, 0x60, 0x15, 0x06
"""linux/bpf_common.h and linux/filter.h."""
_NETWORK_HEADER = 0xFFF00000
"""SKF_NET_OFF: added to an offset, it makes it count from the IP header instead of the payload."""
_SOURCE = {socket.AF_INET: ((12,), 20), socket.AF_INET6: ((8, 12, 16, 20), 40)}
"""Offsets of the source address's words and of the source port (RFC 791, RFC 8200). With IP options, another half-word
is taken for the port. That is good enough: if it differs within a flow, workers hand the flow's datagrams over.
"""
_GOLDEN = 0x9E3779B1
"""2^32 over the golden ratio, made odd (Knuth 6.4): consecutive ports, or those of one parity, are spread."""
_SECOND = 0x85EBCA6B
"""MurmurHash3's first constant: what it makes of a flow has nothing to do with what the first made."""
Step = tuple[int, int, int, int]
"""Opcode, how many steps to leave out when a comparison holds and when it does not, number."""


def spread(group: Sequence[socket.socket], opened: int, down: Collection[int] = ()) -> None:
    """Has the kernel give new connections and flows to the first `opened` sockets of the group, without those at the
    places `down`, of which not all may be. Raises OSError.
    """
    words, port = _SOURCE[group[0].family]
    steps = [_step(_LOAD_WORD, _NETWORK_HEADER + words[0])]
    for offset in words[1:]:
        steps += [_step(_TO_X), _step(_LOAD_WORD, _NETWORK_HEADER + offset), _step(_XOR_X)]
    steps += [_step(_TO_X), _step(_LOAD_HALF, _NETWORK_HEADER + port), _step(_XOR_X)]
    steps += _pick(opened, sorted(each for each in down if each < opened))
    # A load past the end of the packet ends the program with 0, which is the first socket.
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = struct.pack("@HP", len(steps), ctypes.addressof(code))
    # A program that is attached to one socket serves the whole group.
    group[0].setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, program)


def _pick(opened: int, down: Sequence[int]) -> list[Step]:
    """Returns what makes a place of the flow's number."""
    first = [_step(_MULTIPLY, _GOLDEN), _step(_SHIFT_RIGHT, 16), _step(_MODULO, opened)]
    if not down:
        return [*first, _step(_RETURN_A)]
    up = [place for place in range(opened) if place not in down]
    # One comparison for each place that is down; each leaves out the others and the return.
    are_down = [(_JUMP_IF_EQUAL, len(down) - number, 0, place) for number, place in enumerate(down)]
    second = [_step(_LOAD_STORED), _step(_MULTIPLY, _SECOND), _step(_SHIFT_RIGHT, 16), _step(_MODULO, len(up))]
    for number, place in enumerate(up):
        second += [(_JUMP_IF_EQUAL, 0, 1, number), _step(_RETURN, place)]
    return [_step(_STORE), *first, *are_down, _step(_RETURN_A), *second, _step(_RETURN, up[0])]


def _step(code: int, number: int = 0) -> Step:
    return code, 0, 0, number
