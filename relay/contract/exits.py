"""Worker exit codes: the contract with the master. Owns the numbers; must never give one that was in use another
meaning, as after an upgrade the master reaps workers of the program before. Read `master/slots.py` next, which acts on
them.
"""

from enum import IntEnum


class Exit(IntEnum):
    """What a worker's exit status tells the master to do."""

    STOPPED = 0
    """Asked to stop, and did. Not respawned while the master stops; respawned otherwise."""
    CRASHED = 1
    """An unexpected exception. Respawned with back-off."""
    BOOT_FAILED = 3
    """Could not start (import, engine, ports of its own). Counts towards the crash-loop limit at once."""
    RELEASED = 5
    """It released its sessions: they wait in the arena, and no client was told goodbye. Respawned at once, and not
    counted as a death.
    """
    RETIRED = 6
    """The slot is not wanted any more, and the worker has moved all of its sessions away. Not respawned."""
