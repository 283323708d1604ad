"""What the kernel says of a process and of memory: processor time, descriptors, how much is left. It must never know
which process is which. Read next: `workers/metrics/render.py`, which shows it.
"""

import os
import re
import resource
import sys
from contextlib import suppress
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
    max_descriptors: int


def read_process(pid: int) -> ProcessFigures | None:
    """None when it is gone, or not ours to look at."""
    folder = Path("/proc") / str(pid)
    try:
        # Field 2 is the command in brackets and may hold anything (proc(5)); fields 14, 15 and 24 are wanted.
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        descriptors = _descriptors(folder / "fd")
        limits = (folder / "limits").read_text()
    except OSError:
        return None
    return ProcessFigures(
        cpu_seconds=(int(fields[11]) + int(fields[12])) * _TICK_SECONDS,
        resident_bytes=int(fields[21]) * _PAGE_BYTES,
        descriptors=descriptors,
        max_descriptors=_max_descriptors(limits),
    )


def descriptors_left() -> int:
    """How many more this process may open."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit - _descriptors(Path("/proc/self/fd"))


def memory_available(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Bytes that can still be had: on this machine, or in our control group (cgroup v2) when that is less.

    A sandbox may hide the machine's own figure; what nobody says is not short.
    """
    available = sys.maxsize
    with suppress(FileNotFoundError):
        available = _field(meminfo.read_text(), "MemAvailable:") * 1024
    with suppress(OSError, ValueError):
        # `0::/path`; the files are missing in the root group, and `max` is no number.
        group = Path("/sys/fs/cgroup") / Path("/proc/self/cgroup").read_text().strip().rpartition("::/")[2]
        used = int((group / "memory.current").read_text())
        reclaimable = _field((group / "memory.stat").read_text(), "inactive_file")
        available = min(available, int((group / "memory.max").read_text()) - used + reclaimable)
    return available


def _descriptors(folder: Path) -> int:
    # Before Linux 6.2 the size is 0; then listing our own counts the one that it opens.
    return folder.stat().st_size or len(os.listdir(folder))


def _field(text: str, name: str) -> int:
    found = re.search(rf"^{name}\s+(\d+)", text, re.MULTILINE)
    return int(found[1]) if found else 0


def _max_descriptors(limits: str) -> int:
    """The soft limit; 0 for none."""
    return _field(limits, "Max open files")
