"""What the control groups of this process leave it: a share of processor time, and memory. Knows both versions of them
and every group above ours; must never change one. Read next: `master/start/prepare.py`, which counts workers, and
`workers/metrics/processes.py`, which adds the machine's own memory.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

PROC = Path("/proc/self")
_UNLIMITED_BYTES = 1 << 60
"""Version 1 says no limit by a number above this."""


def cpu_quota(proc: Path = PROC) -> float | None:
    """Returns how many cores' time the groups allow, the least of all of them; None without a limit."""
    quotas = []
    for folder in _folders("cpu", proc):
        with suppress(OSError, ValueError):
            if (folder / "cpu.max").exists():
                quota, period = (folder / "cpu.max").read_text().split()
            else:
                quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            # `max` and -1 stand for no limit.
            if quota != "max" and int(quota) > 0:
                quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def memory_left(proc: Path = PROC) -> int | None:
    """Returns the bytes that the groups leave, the least of all of them; None without a limit. What the kernel would
    take back from files counts as left.
    """
    left = []
    for folder in _folders("memory", proc):
        is_second = (folder / "memory.max").exists()
        limit, usage = ("max", "current") if is_second else ("limit_in_bytes", "usage_in_bytes")
        with suppress(OSError, ValueError):
            most = int((folder / f"memory.{limit}").read_text())
            if most < _UNLIMITED_BYTES:
                stat = (folder / "memory.stat").read_text()
                # With the groups below, which version 1 names apart.
                name = "inactive_file" if is_second else "total_inactive_file"
                found = re.search(rf"^{name} (\d+)", stat, re.MULTILINE)
                reclaimable = int(found[1]) if found else 0
                left.append(most - int((folder / f"memory.{usage}").read_text()) + reclaimable)
    return min(left, default=None)


@cache
def _folders(controller: str, proc: Path) -> tuple[Path, ...]:
    """Returns the folders of our group and of all above it that we can see, in each hierarchy with this controller."""
    with suppress(OSError):
        lines = [line.split(":", 2) for line in (proc / "cgroup").read_text().splitlines()]
        path_by_controller = {name: path for _, names, path in lines for name in names.split(",")}
        mounts = (proc / "mountinfo").read_text().splitlines()
        return tuple(folder for mount in mounts for folder in _mounted(mount, controller, path_by_controller))
    return ()


def _mounted(line: str, controller: str, path_by_controller: dict[str, str]) -> Iterator[Path]:
    fields, _, rest = line.partition(" - ")
    root, mount = fields.split()[3:5]
    kind, _, options = rest.split()[:3]
    if kind == "cgroup2":
        path = path_by_controller.get("")
    elif kind == "cgroup" and controller in options.split(","):
        path = path_by_controller.get(controller)
    else:
        return
    if path is None:
        return
    # A container may see its own group as the root of the mount, and its path as the machine has it.
    below = path.removeprefix(root if root != "/" else "") if path.startswith(root) else ""
    parts = [] if ".." in below else [part for part in below.split("/") if part]
    for length in range(len(parts), -1, -1):
        yield Path(mount, *parts[:length])
