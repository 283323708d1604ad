"""When an input came, by both clocks. Owns the difference between them; must never read one. Read `relay/control.py`
next, which is told the time.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Now:
    """By either clock, in seconds."""

    steady: float
    """That of the machine, which nobody sets (CLOCK_MONOTONIC): for all that lasts or is waited for."""
    unix: float
    """Since 1970. It may jump in either direction: for tokens, and for what others are told."""
