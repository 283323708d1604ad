"""Whose a track log is, read from its header in the arena: control numbers the logs of its slot, and one of them may
be in another slot with the publication that it was given to. It must never write. Read next:
`relay/session/numbers.py`.
"""

import os
import struct

from millrace.relay.contract.ids import Slot
from millrace.relay.contract.layout import HEADER_BYTES, LOG_STATE_BYTES, log_offset, parameters_of

_STATE = struct.Struct("<QQQ")


class LogTable:
    """For one slot. Reads through the descriptor: to map the arena would be to map all of it."""

    def __init__(self, arena: int, own: Slot) -> None:
        self._arena = arena
        self._own = own
        self._parameters = parameters_of(os.pread(arena, HEADER_BYTES, 0))

    def is_lent(self, log: int) -> bool:
        """Whether it is open, and another slot's to write."""
        at = log_offset(self._parameters, log)
        epoch, _, owner = _STATE.unpack(os.pread(self._arena, LOG_STATE_BYTES, at))
        return bool(epoch != 0 and epoch % 4 == 0 and owner != self._own)
