"""Reads from a track log's header which slot writes it. A log keeps its number when its session moves, so another slot
may write one of our numbers. It must never write to a log, as its one writer is an engine. Read next:
`relay/session/numbers.py`, which asks before it reuses a number.
"""

import os
import struct

from millrace.relay.contract.ids import Slot
from millrace.relay.contract.layout import HEADER_BYTES, LOG_STATE_BYTES, log_offset, parameters_of

_STATE = struct.Struct("<QQQ")


class TrackLogTable:
    """The track logs of one slot. They are read through the descriptor, as mapping them would map the whole arena."""

    def __init__(self, arena: int, own: Slot) -> None:
        self._arena = arena
        self._own = own
        self._parameters = parameters_of(os.pread(arena, HEADER_BYTES, 0))

    def is_foreign(self, log: int) -> bool:
        """True when the log is open and another slot writes it."""
        at = log_offset(self._parameters, log)
        epoch, _, owner = _STATE.unpack(os.pread(self._arena, LOG_STATE_BYTES, at))
        return bool(epoch != 0 and epoch % 4 == 0 and owner != self._own)
