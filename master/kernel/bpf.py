"""An assembler for the few eBPF instructions that steering needs, and the bpf(2) calls that load the result, without a
compiler and without kernel headers. It must never know what is steered. Read next: `master/kernel/steering.py`, the one
program that it assembles.
"""

import ctypes
import os
import struct
import sys
from dataclasses import dataclass, field
from enum import IntEnum

# Instruction set: https://www.rfc-editor.org/rfc/rfc9669. One instruction is 8 bytes:
#
#   opcode (8) | source, destination register (4 + 4) | offset (16) | immediate (32)

FP = 10
"""The register that points to the end of the stack."""


class Size(IntEnum):
    """How many bytes a load or a store moves (RFC 9669 section 5)."""

    WORD = 0x00
    HALF = 0x08
    BYTE = 0x10
    DOUBLE = 0x18


class Alu(IntEnum):
    """64-bit arithmetic (RFC 9669 section 4.1)."""

    ADD = 0x00
    SUB = 0x10
    MULTIPLY = 0x20
    OR = 0x40
    AND = 0x50
    SHIFT_LEFT = 0x60
    SHIFT_RIGHT = 0x70
    MOVE = 0xB0


class Jump(IntEnum):
    """Unsigned 32-bit comparisons (RFC 9669 section 4.3)."""

    EQUAL = 0x10
    GREATER = 0x20
    AT_LEAST = 0x30
    NOT_EQUAL = 0x50
    LESS = 0xA0


@dataclass(slots=True)
class Assembler:
    """Instructions in order; jumps name labels, which may come later."""

    _code: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    _jumps: dict[int, str] = field(default_factory=dict)
    _labels: dict[str, int] = field(default_factory=dict)

    def load(self, size: Size, to: int, base: int, offset: int) -> None:
        """`to = *(base + offset)`, zero-extended."""
        self._emit(0x61 | size, to, base, offset, 0)

    def store(self, size: Size, base: int, offset: int, register: int) -> None:
        """`*(base + offset) = register`."""
        self._emit(0x63 | size, base, register, offset, 0)

    def store_number(self, size: Size, base: int, offset: int, number: int) -> None:
        """`*(base + offset) = number`."""
        self._emit(0x62 | size, base, 0, offset, number)

    def number(self, operation: Alu, register: int, number: int) -> None:
        """`register = register operation number`."""
        self._emit(0x07 | operation, register, 0, 0, number)

    def register(self, operation: Alu, register: int, other: int) -> None:
        """`register = register operation other`."""
        self._emit(0x0F | operation, register, other, 0, 0)

    def big_endian_16(self, register: int) -> None:
        """Converts the low 16 bits from network order (RFC 9669 section 4.2)."""
        self._emit(0xDC, register, 0, 0, 16)

    def map(self, register: int, fd: int) -> None:
        """`register = the map` (RFC 9669 section 5.4: two instructions, source 1 is a map by descriptor)."""
        self._emit(0x18, register, 1, 0, fd)
        self._emit(0, 0, 0, 0, 0)

    def jump_if(self, comparison: Jump, register: int, number: int, label: str) -> None:
        """Jumps when the comparison of the low half of `register` with `number` holds."""
        self._jumps[len(self._code)] = label
        self._emit(0x06 | comparison, register, 0, 0, number)

    def jump_if_register(self, comparison: Jump, register: int, other: int, label: str) -> None:
        """Jumps when the comparison of the low halves of `register` and `other` holds."""
        self._jumps[len(self._code)] = label
        self._emit(0x0E | comparison, register, other, 0, 0)

    def jump_if_null(self, register: int, label: str) -> None:
        """Jumps when a pointer is null. Compares all 64 bits, as the verifier asks of a pointer's check."""
        self._jumps[len(self._code)] = label
        self._emit(0x15, register, 0, 0, 0)

    def jump(self, label: str) -> None:
        """Jumps always."""
        self._jumps[len(self._code)] = label
        self._emit(0x05, 0, 0, 0, 0)

    def call(self, helper: int) -> None:
        """Calls a helper of the kernel with r1 to r5. Its answer is in r0, and r1 to r5 are overwritten."""
        self._emit(0x85, 0, 0, 0, helper)

    def exit(self) -> None:
        """Ends with r0."""
        self._emit(0x95, 0, 0, 0, 0)

    def label(self, name: str) -> None:
        """Names the next instruction."""
        assert name not in self._labels, f"label {name} stands twice"
        self._labels[name] = len(self._code)

    def assemble(self) -> bytes:
        """Returns the program as the kernel takes it."""
        assembled = []
        for place, (opcode, to, source, offset, number) in enumerate(self._code):
            if place in self._jumps:
                offset = self._labels[self._jumps[place]] - place - 1  # noqa: PLW2901 - the label is known only now
            registers = source << 4 | to if sys.byteorder == "little" else to << 4 | source
            signed = number - (1 << 32) if number >= 1 << 31 else number
            assembled.append(struct.pack("=BBhi", opcode, registers, offset, signed))
        return b"".join(assembled)

    def _emit(self, opcode: int, to: int, source: int, offset: int, number: int) -> None:
        self._code.append((opcode, to, source, offset, number))


# --- bpf(2)

_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "armv7l": 386, "ppc64le": 361, "s390x": 351}
_MAP_CREATE, _MAP_UPDATE, _MAP_DELETE, _PROG_LOAD = 0, 2, 3, 5
_LOG_BYTES = 64 << 10


class MapType(IntEnum):
    """Kinds of maps, as in the kernel's `enum bpf_map_type`."""

    ARRAY = 2
    LRU_HASH = 9
    REUSEPORT_SOCKARRAY = 20


class ProgramRefused(OSError):
    """The kernel's verifier did not take a program; its log is in the text."""


def create_map(kind: MapType, key_bytes: int, value_bytes: int, entries: int, name: str) -> int:
    """Makes a map and returns its descriptor. Raises OSError."""
    layout = struct.pack("=IIIIIII16s", kind, key_bytes, value_bytes, entries, 0, 0, 0, name.encode())
    return _bpf(_MAP_CREATE, layout)


def update_map(fd: int, key: bytes, value: bytes) -> None:
    """Sets one entry. Raises OSError."""
    keyed, valued = ctypes.create_string_buffer(key), ctypes.create_string_buffer(value)
    _bpf(_MAP_UPDATE, struct.pack("=IIQQQ", fd, 0, ctypes.addressof(keyed), ctypes.addressof(valued), 0))


def delete_from_map(fd: int, key: bytes) -> None:
    """Removes one entry. Raises OSError."""
    keyed = ctypes.create_string_buffer(key)
    _bpf(_MAP_DELETE, struct.pack("=IIQQQ", fd, 0, ctypes.addressof(keyed), 0, 0))


def load_program(kind: int, code: bytes, name: str) -> int:
    """Loads a program and returns its descriptor. Raises ProgramRefused with the verifier's log, or OSError without
    one.
    """
    try:
        return _load(kind, code, name, None)
    except OSError:
        # The log is asked for only after a failure, as a log that does not fit makes a good program fail.
        log = ctypes.create_string_buffer(_LOG_BYTES)
        try:
            return _load(kind, code, name, log)
        except OSError as error:
            if reason := log.value.decode(errors="replace").strip():
                raise ProgramRefused(error.errno, f"{error.strerror}: {reason}") from error
            raise


def _load(kind: int, code: bytes, name: str, log: ctypes.Array[ctypes.c_char] | None) -> int:
    instructions = ctypes.create_string_buffer(code)
    # The program calls no helper that needs a GPL-compatible licence.
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    program = (kind, len(code) // 8, ctypes.addressof(instructions), ctypes.addressof(licence))
    logging = (1, _LOG_BYTES, ctypes.addressof(log)) if log is not None else (0, 0, 0)
    return _bpf(_PROG_LOAD, struct.pack("=IIQQIIQII16s", *program, *logging, 0, 0, name.encode()))


def _bpf(command: int, attributes: bytes) -> int:
    number = _SYSCALL.get(os.uname().machine)
    if number is None:
        raise OSError(38, f"bpf(2) has no known number on {os.uname().machine}")
    # The kernel accepts a shorter structure than its own, and a longer one if the rest is zero.
    given = ctypes.create_string_buffer(attributes, len(attributes))
    result: int = _LIBC.syscall(number, command, given, ctypes.c_uint(len(attributes)))
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))
    return result


_LIBC = ctypes.CDLL(None, use_errno=True)
