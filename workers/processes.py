"""What the kernel says of a process: processor time, memory, descriptors. It must never know which process is which.
Read next: `workers/metrics.py`, which shows it.
"""

import os
from dataclasses import dataclass
from pathlib import Path

_TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class ProcessFigures:
    """Of one moment."""

    cpu_seconds: float
    resident_bytes: int
    """Shared memory counts in full for each process that touched it."""
    descriptors: int
    threads: int


def read_process(pid: int) -> ProcessFigures | None:
    """None when it is gone, or not ours to look at."""
    folder = Path("/proc") / str(pid)
    try:
        # Field 2 is the command in brackets and may hold anything (proc(5)); fields 14, 15, 20 and 24 are wanted.
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        descriptors = len(os.listdir(folder / "fd"))
    except OSError:
        return None
    return ProcessFigures(
        cpu_seconds=(int(fields[11]) + int(fields[12])) * _TICK_SECONDS,
        resident_bytes=int(fields[21]) * _PAGE_BYTES,
        descriptors=descriptors,
        threads=int(fields[17]),
    )
