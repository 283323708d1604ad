"""What holds for every test: generated cases are bounded in number, never in time, for a machine may stand still; and
tests run side by side, but for those that measure time. Read next: `tests/timing.py`.
"""

import os

from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.timing"]

settings.register_profile("millrace", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("millrace")

MOST_AT_ONCE = 8


def pytest_xdist_auto_num_workers() -> int:
    """For `-n auto`: two for each core, since most tests wait most of the time."""
    return min(MOST_AT_ONCE, 2 * len(os.sched_getaffinity(0)))
