"""What the kernel says is left."""

import os
from pathlib import Path

from millrace.workers.metrics.processes import descriptors_left, memory_available


def test_what_is_left_is_what_the_kernel_says() -> None:
    left = descriptors_left()
    with open("/dev/null"), open("/dev/null"):
        assert descriptors_left() == left - 2
    assert 0 < memory_available() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_memory_that_a_sandbox_does_not_tell_of_is_not_short(tmp_path: Path) -> None:
    assert memory_available(tmp_path / "meminfo") > 1 << 30
