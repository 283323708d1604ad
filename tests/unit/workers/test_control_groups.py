"""What control groups leave, from folders as the kernel makes them."""

from pathlib import Path

import pytest

from millrace.workers.control_groups import cpu_quota, memory_left

MIB = 1 << 20


class Groups:
    """A /proc/self and mounts of groups."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.mount = folder / "proc", folder / "mount"
        self.proc.mkdir()

    def first(self, path: str, root: str = "/") -> None:
        self._say(f"4:memory:{path}\n1:cpu,cpuacct:{path}\n0::/\n", root, "cgroup", "rw,cpu,cpuacct,memory")

    def second(self, path: str, root: str = "/") -> None:
        self._say(f"0::{path}\n", root, "cgroup2", "rw,nsdelegate")

    def _say(self, groups: str, root: str, kind: str, options: str) -> None:
        (self.proc / "cgroup").write_text(groups)
        (self.proc / "mountinfo").write_text(
            "20 1 0:19 / /proc rw - proc proc rw\n"
            f"30 20 0:26 {root} {self.mount} rw,relatime shared:9 - {kind} {kind} {options}\n"
        )

    def write(self, path: str, **values: str) -> None:
        folder = self.mount / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in values.items():
            (folder / name.replace("__", ".")).write_text(value + "\n")


@pytest.fixture
def groups(tmp_path: Path) -> Groups:
    return Groups(tmp_path)


def test_the_quota_of_the_second_version_is_the_least_of_all_groups_above(groups: Groups) -> None:
    groups.second("/pod/box")
    groups.write("pod/box", cpu__max="max 100000")
    assert cpu_quota(groups.proc) is None
    groups.write("pod", cpu__max="150000 100000")
    assert cpu_quota(groups.proc) == 1.5
    groups.write("pod/box", cpu__max="50000 100000")
    assert cpu_quota(groups.proc) == 0.5


def test_the_quota_of_the_first_version(groups: Groups) -> None:
    groups.first("/docker/abc")
    groups.write("docker/abc", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    assert cpu_quota(groups.proc) is None
    groups.write("docker", cpu__cfs_quota_us="50000", cpu__cfs_period_us="100000")
    assert cpu_quota(groups.proc) == 0.5


@pytest.mark.parametrize("path", ["/docker/abc", "/", "/../elsewhere"])
def test_a_container_whose_own_group_is_the_mounts_root(groups: Groups, path: str) -> None:
    groups.second(path, root="/docker/abc")
    groups.write("", cpu__max="200000 100000")
    assert cpu_quota(groups.proc) == 2


def test_memory_of_the_first_version_counts_with_what_can_be_taken_back(groups: Groups) -> None:
    groups.first("/box")
    values = {
        "memory__usage_in_bytes": str(80 * MIB),
        "memory__stat": f"inactive_file 1\ntotal_inactive_file {10 * MIB}",
    }
    groups.write("box", memory__limit_in_bytes=str((1 << 63) - 4096), **values)
    assert memory_left(groups.proc) is None
    groups.write("box", memory__limit_in_bytes=str(100 * MIB), **values)
    assert memory_left(groups.proc) == 30 * MIB


def test_memory_of_the_second_version_is_the_least_of_all_groups_above(groups: Groups) -> None:
    groups.second("/pod/box")
    groups.write("pod/box", memory__max="max", memory__current=str(MIB), memory__stat="inactive_file 0")
    assert memory_left(groups.proc) is None
    groups.write("pod", memory__max=str(9 * MIB), memory__current=str(8 * MIB), memory__stat=f"inactive_file {MIB}")
    assert memory_left(groups.proc) == 2 * MIB


def test_without_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is memory_left(tmp_path) is None
