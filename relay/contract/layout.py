"""Where the arena's parts lie, for those who reach it from Python: the master that makes it, workers that read the
slot table. Owns sizes and offsets, mirroring `relay/engine/arena/src/layout.rs`; must never map or open anything. Read
that file's drawing next; `tests/contract/arena_layout.txt` holds both to the same numbers.
"""

import struct
from dataclasses import astuple, dataclass
from enum import IntEnum
from functools import cache
from mmap import mmap

MAGIC = b"MILLRACE"
VERSION = 7
COUNTERS = 512
"""64-bit counters in a slot's stats page."""

_PAGE = 4096
_SLOT_STRIDE = 8192
_LOG_HEADER = 512
_ENTRY_STRIDE = 1536
_RING_HEADER = 128
_HANDOVER_STRIDE = 1536
_ADDRESS_STRIDE = 32
_SESSION_WORDS = 2048
_SESSION_COPY_HEADER = 64
_HEADER = struct.Struct("<8sII8IQQ")
HEADER_BYTES = _HEADER.size
"""Of which the last eight are the seed."""
LINES_DROPPED = 2048
"""Offset of a u64 in the header's page, behind the header: lines of the log that masters have dropped, written by the
master.
"""


class SlotState(IntEnum):
    """What the master says of a slot; zero, as in a fresh arena, is an empty slot."""

    EMPTY = 0
    STARTING = 1
    RUNNING = 2
    STOPPING = 3
    DEAD = 4
    RELEASING = 5


@dataclass(frozen=True, slots=True)
class ArenaParameters:
    """The sizes that the configuration chooses, in the order in which the header carries them."""

    slots: int
    """1..64."""
    logs_per_slot: int
    log_packets: int
    """Packets in a track log, a power of two."""
    addresses: int
    """Cells of the address table, a power of two."""
    handover_packets: int
    """Datagrams in the hand-over ring of each ordered pair of slots, a power of two."""
    messages: int
    """Words in the message ring of each ordered pair of slots, a power of two."""
    sessions_per_slot: int
    session_bytes: int
    """A multiple of 64."""

    def log_stride(self) -> int:
        """Bytes from one track log to the next."""
        return _to_page(_LOG_HEADER + self.log_packets * (8 + _ENTRY_STRIDE))

    def size(self) -> int:
        """Bytes of the whole arena. They are reserved; the kernel gives memory to the pages that are touched."""
        pairs = self.slots * self.slots
        message_stride = _RING_HEADER + -(-self.messages * 8 // 64) * 64
        handover_stride = _RING_HEADER + self.handover_packets * _HANDOVER_STRIDE
        session_stride = _SESSION_WORDS * 8 + 2 * (_SESSION_COPY_HEADER + self.session_bytes)

        end = _PAGE + self.slots * _SLOT_STRIDE
        end += self.slots * self.logs_per_slot * self.log_stride()
        end = _to_page(end + pairs * message_stride)
        end = _to_page(end + pairs * handover_stride)
        end = _to_page(end + self.addresses * _ADDRESS_STRIDE)
        records = self.slots * self.sessions_per_slot
        end = _to_page(end + records * session_stride)
        return _to_page(end + records * 8)

    def header(self, seed: int) -> bytes:
        """The bytes at offset 0; all zero after them is a valid empty arena. `seed`: 64 random bits, for a hash."""
        return _HEADER.pack(MAGIC, VERSION, 0, *astuple(self), self.size(), seed)


@dataclass(frozen=True, slots=True)
class SlotOffsets:
    """Byte offsets of one slot's words in the arena; each is a little-endian u64, aligned, so a write is one store."""

    incarnation: int
    """Which life of the slot, from 1. Written by the master."""
    pid: int
    """Written by the master."""
    state: int
    """A `SlotState`. Written by the master."""
    drain_until: int
    """Microseconds of CLOCK_MONOTONIC at which the worker will be stopped; until then it opens no room. 0 while it is
    not drained. Written by the master.
    """
    log_level: int
    """A level of Python's logging that replaces the one a worker has booted with; 0 for none. Written by the master."""
    wanted: int
    """1 while the slot is to have a worker; one that reads 0 moves its sessions away and ends. Written by the master.
    """
    closed: int
    """1 while an operator wants the slot to have no session. Written by whichever worker is asked."""
    down: int
    """1 while the slot has no worker that serves, and has had none for a while: another worker takes its connections.
    Written by the master.
    """
    engine_beat: int
    """Microseconds of CLOCK_MONOTONIC, written by the engine thread; 0 before the first beat."""
    control_beat: int
    """Microseconds of CLOCK_MONOTONIC, written by the worker's Python loop; 0 before the first beat."""
    drained: int
    """The `drain_until` for which the worker has no session left. Written by the worker's Python loop."""
    deaths: int
    """How many workers of the slot ended unasked, under whatever master. Written by the master."""
    replacements: int
    """How many workers of the slot were asked to leave their sessions to a successor. Written by the master."""
    lines_dropped: int
    """Lines of the log that the slot's workers have dropped. Written by the worker's Python loop."""
    counters: int
    """The first of `COUNTERS` words, written by the engine thread."""


LOG_STATE_BYTES = 24
"""The first bytes of a track log's header: its epoch (a multiple of four but zero is an open log), its publication, and
which slot writes it.
"""


def parameters_of(header: bytes) -> ArenaParameters:
    """Reads the sizes from an arena's header."""
    _, _, _, *parameters, _, _ = _HEADER.unpack(header)
    return ArenaParameters(*parameters)


def log_offset(parameters: ArenaParameters, log: int) -> int:
    """The byte offset at which a track log begins."""
    return _PAGE + parameters.slots * _SLOT_STRIDE + log * parameters.log_stride()


@cache
def slot_offsets(slot: int) -> SlotOffsets:
    """Where the words of `slot` lie. Cached, as each beat asks."""
    start = _PAGE + slot * _SLOT_STRIDE
    return SlotOffsets(
        incarnation=start,
        pid=start + 8,
        state=start + 16,
        drain_until=start + 24,
        log_level=start + 32,
        wanted=start + 40,
        closed=start + 48,
        down=start + 56,
        engine_beat=start + 64,
        control_beat=start + 72,
        drained=start + 80,
        deaths=start + 104,
        replacements=start + 112,
        lines_dropped=start + 88,
        counters=start + 4096,
    )


def read_word(arena: mmap | memoryview | bytearray, offset: int) -> int:
    """Reads one u64 of the mapped arena in one piece, as another process may write it meanwhile."""
    return memoryview(arena)[offset : offset + 8].cast("Q")[0]


def write_word(arena: mmap | memoryview | bytearray, offset: int, value: int) -> None:
    """Stores one u64 into the mapped arena, in one piece. `struct.pack_into` would not do: it clears the word, then
    writes byte after byte, and a master that reads a beat in between takes the worker for dead.
    """
    memoryview(arena)[offset : offset + 8].cast("Q")[0] = value


def _to_page(size: int) -> int:
    return -(-size // _PAGE) * _PAGE
