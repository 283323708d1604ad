"""When an input came, by both clocks. Owns the difference between them; must never read one. Read `relay/control.py`
next, which is told the time.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Now:
    """The time of one input by both clocks, in seconds."""

    steady: float
    """CLOCK_MONOTONIC, which nobody can set: for deadlines and durations."""
    unix: float
    """Since 1970, for tokens and for times that are shown. The clock may be set in either direction."""
