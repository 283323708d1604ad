"""When a worker has too much to do, or too little left, to open a session. Owns what counts as too much; must never
measure anything itself. Read next: `workers/metrics/gauge.py`, which measures.
"""

from enum import StrEnum

from millrace.relay.config.model import LimitsConfig
from millrace.relay.contract.inputs import Measured


class Pressure(StrEnum):
    """What is short; the label of `millrace_sessions_rejected_total`."""

    DESCRIPTORS = "descriptors"
    MEMORY = "memory"
    LATE = "late"


def pressure_of(measured: Measured, limits: LimitsConfig) -> Pressure | None:
    """Why this worker opens no session; None when it is short of nothing."""
    if measured.descriptors < limits.spare_descriptors:
        return Pressure.DESCRIPTORS
    if measured.memory_bytes < limits.spare_memory_bytes:
        return Pressure.MEMORY
    if measured.late_seconds * 1000 > limits.late_ms:
        return Pressure.LATE
    return None
