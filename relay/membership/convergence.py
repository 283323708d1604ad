"""When a worker's view of the others is whole enough to act on for the sessions that it adopted: the engine feeds their
streams as before, and must not be told otherwise only because the directory is still empty. Owns that decision; must
never know a session. Read `relay/ledger.py` next, which feeds viewers.
"""

CONVERGENCE_SECONDS = 2.0
"""The longest wait, seconds. Another worker that has not told its facts by then may be away for long, and streams that
its publications feed are detached.
"""


class Convergence:
    """Reached once adoption is done, the slot table was read and every other worker's snapshot is in, or once time is
    up.
    """

    def __init__(self) -> None:
        self.has_converged = False
        self.adoption_done = False
        """The engine has named every session that it adopted."""
        self.slots_seen = False
        """The slot table was read, so the other living workers are known."""
        self._began_at: float | None = None

    def converges(self, waits_for_others: bool, now: float) -> bool:
        """Called after each input. True once: when convergence is reached."""
        if self.has_converged:
            return False
        if self._began_at is None:
            self._began_at = now
        whole = self.adoption_done and self.slots_seen and not waits_for_others
        self.has_converged = whole or now - self._began_at >= CONVERGENCE_SECONDS
        return self.has_converged
