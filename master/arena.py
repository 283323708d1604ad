"""Makes the arena or inherits it, and writes its slot table. It must never read or write anything behind the table, as
that is the engines'. Read next: `relay/contract/layout.py`, where everything lies.
"""

import mmap
import os
import secrets

from millrace.master.life import Life
from millrace.master.watchdog import Beats
from millrace.relay.config.model import ArenaConfig
from millrace.relay.contract.layout import (
    HEADER_BYTES,
    LINES_DROPPED,
    ArenaParameters,
    SlotState,
    read_word,
    slot_offsets,
    write_word,
)


class ArenaRefused(Exception):
    """An arena of another layout or size."""


class Arena:
    """The shared memory, as the master sees it."""

    def __init__(self, fd: int, slots: int) -> None:
        self.fd = fd
        self._table = memoryview(mmap.mmap(fd, slot_offsets(slots).incarnation))

    @classmethod
    def make(cls, slots: int, config: ArenaConfig) -> "Arena":
        """Makes a new arena."""
        parameters = _parameters(slots, config)
        fd = os.memfd_create("millrace-arena", os.MFD_CLOEXEC)
        # Only the size is set: the kernel gives a page when it is touched.
        os.ftruncate(fd, parameters.size())
        os.pwrite(fd, parameters.header(secrets.randbits(64)), 0)
        return cls(fd, slots)

    @classmethod
    def inherit(cls, fd: int, slots: int, config: ArenaConfig) -> "Arena":
        """Goes on with another master's arena. Raises ArenaRefused when this program would make another layout."""
        header, size = os.pread(fd, HEADER_BYTES, 0), os.fstat(fd).st_size
        parameters = _parameters(slots, config)
        # The header's last 8 bytes are a random seed.
        if header[:-8] != parameters.header(0)[:-8] or size != parameters.size():
            raise ArenaRefused(f"its arena of {size} bytes does not have the layout of this program")
        return cls(fd, slots)

    def write(self, life: Life) -> None:
        """Writes a slot's row of the table, which all workers read."""
        at = slot_offsets(life.slot)
        write_word(self._table, at.incarnation, life.incarnation)
        write_word(self._table, at.pid, life.pid)
        write_word(self._table, at.wanted, life.is_wanted)
        write_word(self._table, at.down, life.is_down)
        write_word(self._table, at.state, life.state)

    def count_end(self, slot: int, died: bool, was_replaced: bool) -> None:
        """Counts a worker that died, or was replaced, for the metrics. The next master goes on counting."""
        at = slot_offsets(slot)
        for offset, is_meant in ((at.deaths, died), (at.replacements, was_replaced)):
            if is_meant:
                write_word(self._table, offset, read_word(self._table, offset) + 1)

    def pids(self, slots: int) -> dict[int, int]:
        """Returns the process id of each slot's worker, or of its last one, under whatever master."""
        found = ((slot, read_word(self._table, slot_offsets(slot).pid)) for slot in range(slots))
        return {slot: pid for slot, pid in found if pid}

    def incarnation(self, slot: int) -> int:
        """Returns the number of the slot's last life, under whatever master; 0 when it had none."""
        return read_word(self._table, slot_offsets(slot).incarnation)

    def want(self, count: int) -> None:
        """Marks the first `count` slots as wanted; for a new arena."""
        for slot in range(count):
            write_word(self._table, slot_offsets(slot).wanted, 1)

    def wanted(self, slots: int) -> int:
        """Returns how many slots, from the first, are wanted."""
        return sum(read_word(self._table, slot_offsets(slot).wanted) for slot in range(slots))

    def is_empty(self, slot: int) -> bool:
        """True when the slot never had a worker, or its last one left no session."""
        return read_word(self._table, slot_offsets(slot).state) == SlotState.EMPTY

    def is_closed(self, slot: int) -> bool:
        """True when an operator wants no session there (`millrace drain`)."""
        return read_word(self._table, slot_offsets(slot).closed) != 0

    def set_drain(self, slots: int, until: float) -> None:
        """Has all workers refuse new rooms, and tells them until when their sessions may go on; 0 undoes it."""
        for slot in range(slots):
            write_word(self._table, slot_offsets(slot).drain_until, _us(until))

    def set_log_level(self, slots: int, level: int) -> None:
        """Sets the level of all workers, also of later ones; 0 is the configured level."""
        for slot in range(slots):
            write_word(self._table, slot_offsets(slot).log_level, level)

    def add_lines_dropped(self, count: int) -> None:
        """Counts lines of the log that a master has dropped. The next master goes on counting."""
        if count:
            write_word(self._table, LINES_DROPPED, read_word(self._table, LINES_DROPPED) + count)

    def drained(self, slots: int) -> list[bool]:
        """Returns for each slot whether its worker has reported, since `set_drain`, that no session is left."""
        table = self._table
        offsets = [slot_offsets(slot) for slot in range(slots)]
        return [read_word(table, at.drained) == read_word(table, at.drain_until) for at in offsets]

    def beats(self, slot: int) -> Beats:
        """Returns when the slot's two loops last beat."""
        at = slot_offsets(slot)
        return Beats(read_word(self._table, at.engine_beat) / 1e6, read_word(self._table, at.control_beat) / 1e6)


def _parameters(slots: int, config: ArenaConfig) -> ArenaParameters:
    return ArenaParameters(
        slots=slots,
        logs_per_slot=config.logs_per_slot,
        log_packets=config.log_packets,
        addresses=config.addresses,
        handover_packets=config.handover_packets,
        messages=config.messages,
        sessions_per_slot=config.sessions_per_slot,
        session_bytes=config.session_bytes,
    )


def _us(seconds: float) -> int:
    return int(seconds * 1e6)
