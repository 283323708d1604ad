"""Makes the arena, or takes a predecessor's up, and keeps its slot table. Knows the header and the table, and nothing
else of what lies there. Read next: `relay/contract/layout.py`.
"""

import mmap
import os
import secrets

from millrace.master.slots import Beats, Life
from millrace.relay.config.model import ArenaConfig
from millrace.relay.contract.layout import HEADER_BYTES, ArenaParameters, SlotState, read_word, slot_offsets, write_word


class ArenaRefused(Exception):
    """An arena of another layout or size."""


class Arena:
    """The shared memory, as the master sees it."""

    def __init__(self, fd: int, slots: int) -> None:
        self.fd = fd
        self._table = memoryview(mmap.mmap(fd, slot_offsets(slots).incarnation))

    @classmethod
    def make(cls, slots: int, config: ArenaConfig) -> "Arena":
        """A fresh one."""
        parameters = _parameters(slots, config)
        fd = os.memfd_create("millrace-arena", os.MFD_CLOEXEC)
        # Only the size is set: pages come when they are touched.
        os.ftruncate(fd, parameters.size())
        os.pwrite(fd, parameters.header(secrets.randbits(64)), 0)
        return cls(fd, slots)

    @classmethod
    def inherit(cls, fd: int, slots: int, config: ArenaConfig) -> "Arena":
        """A predecessor's. Raises ArenaRefused when it is not the one that this program would make."""
        header, size = os.pread(fd, HEADER_BYTES, 0), os.fstat(fd).st_size
        parameters = _parameters(slots, config)
        # All but the seed at its end, which is of chance.
        if header[:-8] != parameters.header(0)[:-8] or size != parameters.size():
            raise ArenaRefused(f"its arena of {size} bytes has not the layout of this program")
        return cls(fd, slots)

    def write(self, life: Life) -> None:
        """Tells everybody who lives in a slot."""
        at = slot_offsets(life.slot)
        write_word(self._table, at.incarnation, life.incarnation)
        write_word(self._table, at.pid, life.pid)
        write_word(self._table, at.wanted, life.is_wanted)
        write_word(self._table, at.state, life.state)

    def incarnation(self, slot: int) -> int:
        """Of the slot's last life, in our time or a predecessor's; 0 for none."""
        return read_word(self._table, slot_offsets(slot).incarnation)

    def want(self, count: int) -> None:
        """The first so many slots are to have a worker; for a fresh arena."""
        for slot in range(count):
            write_word(self._table, slot_offsets(slot).wanted, 1)

    def wanted(self, slots: int) -> int:
        """How many slots are to have a worker, the first ones."""
        return sum(read_word(self._table, slot_offsets(slot).wanted) for slot in range(slots))

    def is_empty(self, slot: int) -> bool:
        """Whether nobody has lived there, or its last worker has left nothing."""
        return read_word(self._table, slot_offsets(slot).state) == SlotState.EMPTY

    def is_closed(self, slot: int) -> bool:
        """Whether an operator wants no session there (`millrace drain`)."""
        return read_word(self._table, slot_offsets(slot).closed) != 0

    def set_drain(self, slots: int, until: float) -> None:
        """Tells all workers to let nobody in, and until when their sessions may go on."""
        for slot in range(slots):
            write_word(self._table, slot_offsets(slot).drain_until, _us(until))

    def set_log_level(self, slots: int, level: int) -> None:
        """Tells all workers, those that are not yet born too."""
        for slot in range(slots):
            write_word(self._table, slot_offsets(slot).log_level, level)

    def drained(self, slots: int) -> list[bool]:
        """Which slots have no session left since they were told."""
        table = self._table
        offsets = [slot_offsets(slot) for slot in range(slots)]
        return [read_word(table, at.drained) == read_word(table, at.drain_until) for at in offsets]

    def beats(self, slot: int) -> Beats:
        """When the slot's loops last vouched for themselves."""
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
