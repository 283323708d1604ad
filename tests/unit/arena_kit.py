"""An arena whose slot table a test writes as the master does."""

import mmap
import os

from millrace.relay.contract.layout import ArenaParameters, SlotState, slot_offsets, write_word


class Master:
    """Writes the table as the master does."""

    def __init__(self) -> None:
        parameters = ArenaParameters(3, 8, 256, 256, 16, 64, 4, 256)
        self.arena = os.memfd_create("arena")
        os.ftruncate(self.arena, parameters.size())
        self.map = memoryview(mmap.mmap(self.arena, parameters.size()))

    def write(self, slot: int, incarnation: int, state: SlotState, beat_us: int = 0, wanted: bool = True) -> None:
        at = slot_offsets(slot)
        for offset, value in [
            (at.incarnation, incarnation),
            (at.pid, 100 + slot),
            (at.state, state),
            (at.wanted, wanted),
            (at.engine_beat, beat_us),
            (at.control_beat, beat_us),
        ]:
            write_word(self.map, offset, value)
