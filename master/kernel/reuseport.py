"""The classic BPF program that spreads new connections and flows over the first sockets of a SO_REUSEPORT group, those
of the open slots. It needs no privilege, so it serves the listeners, and media where the kernel does not steer. It must
never know what a slot is. Read next: `master/kernel/eligible.py`, which says when.

    (source address ^ source port) * a constant, its upper half modulo `opened`: one flow always has one socket
"""

import ctypes
import socket
import struct
from collections.abc import Sequence

_SO_ATTACH_REUSEPORT_CBPF = 51
"""From asm-generic/socket.h; Python does not have it."""
_LOAD_WORD, _LOAD_HALF, _XOR_X, _MULTIPLY, _SHIFT_RIGHT, _MODULO, _TO_X, _RETURN_A = (
    *(0x20, 0x28, 0xAC, 0x24, 0x74, 0x94, 0x07, 0x16),
)
"""linux/bpf_common.h and linux/filter.h."""
_NETWORK_HEADER = 0xFFF00000
"""SKF_NET_OFF: added to an offset, it makes it count from the IP header instead of the payload."""
_SOURCE = {socket.AF_INET: ((12,), 20), socket.AF_INET6: ((8, 12, 16, 20), 40)}
"""Offsets of the source address's words and of the source port (RFC 791, RFC 8200). With IP options, another half-word
is taken for the port. That is good enough: if it differs within a flow, workers hand the flow's datagrams over.
"""
_GOLDEN = 0x9E3779B1
"""2^32 over the golden ratio, made odd (Knuth 6.4): consecutive ports, or those of one parity, are spread."""


def spread(group: Sequence[socket.socket], opened: int) -> None:
    """Has the kernel give new connections and flows to the first `opened` sockets of the group. Raises OSError."""
    words, port = _SOURCE[group[0].family]
    steps = [(_LOAD_WORD, _NETWORK_HEADER + words[0])]
    for offset in words[1:]:
        steps += [(_TO_X, 0), (_LOAD_WORD, _NETWORK_HEADER + offset), (_XOR_X, 0)]
    steps += [(_TO_X, 0), (_LOAD_HALF, _NETWORK_HEADER + port), (_XOR_X, 0)]
    steps += [(_MULTIPLY, _GOLDEN), (_SHIFT_RIGHT, 16), (_MODULO, opened), (_RETURN_A, 0)]
    # A load past the end of the packet ends the program with 0, which is the first socket: its slot is always open.
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", each, 0, 0, number) for each, number in steps))
    program = struct.pack("@HP", len(steps), ctypes.addressof(code))
    # A program that is attached to one socket serves the whole group.
    group[0].setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, program)
