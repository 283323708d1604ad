"""Reads from the kernel what a process uses, and how much memory and how many descriptors are left. It must never know
which process is which. Read next: `workers/metrics/render.py`, which shows the numbers.
"""

import os
import re
import resource
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from millrace.workers.control_groups import memory_left

_TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class ProcessStats:
    """What a process uses at one moment."""

    cpu_seconds: float
    resident_bytes: int
    """Includes shared memory, which counts in full for each process that touched it."""
    descriptors: int
    max_descriptors: int


def read_process(pid: int) -> ProcessStats | None:
    """Returns what a process uses; None when it is gone, or belongs to another user."""
    folder = Path("/proc") / str(pid)
    try:
        # Field 2 is the command in brackets and may hold anything (proc(5)); fields 14, 15 and 24 are wanted.
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        descriptors = _descriptors(folder / "fd")
        limits = (folder / "limits").read_text()
    except OSError:
        return None
    return ProcessStats(
        cpu_seconds=(int(fields[11]) + int(fields[12])) * _TICK_SECONDS,
        resident_bytes=int(fields[21]) * _PAGE_BYTES,
        descriptors=descriptors,
        max_descriptors=_max_descriptors(limits),
    )


def descriptors_left() -> int:
    """Returns how many more descriptors this process may open."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit - _descriptors(Path("/proc/self/fd"))


def memory_available(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Returns the bytes of memory that are left: on this machine, or in a control group of ours when that is
    less. A number that a sandbox hides counts as unlimited.
    """
    available = sys.maxsize
    with suppress(FileNotFoundError):
        available = _field(meminfo.read_text(), "MemAvailable:") * 1024
    left = memory_left()
    return available if left is None else min(available, left)


def _descriptors(folder: Path) -> int:
    # Before Linux 6.2 the size is 0. Then the names are counted, with our own folder one too many.
    return folder.stat().st_size or len(os.listdir(folder))


def _field(text: str, name: str) -> int:
    found = re.search(rf"^{name}\s+(\d+)", text, re.MULTILINE)
    return int(found[1]) if found else 0


def _max_descriptors(limits: str) -> int:
    """Returns the soft limit; 0 for none."""
    return _field(limits, "Max open files")
