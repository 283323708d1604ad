"""When a worker's view of the others is whole enough to act on for the sessions that it adopted: the engine feeds them
as before, and must not be told otherwise only because the directory is still empty. Owns that moment; must never know
a session. Read `relay/ledger.py` next, which feeds viewers.
"""

CONVERGENCE_SECONDS = 2.0
"""Another worker that has not told its facts by then may be gone for long; its viewers stop being fed from it."""


class Convergence:
    """Until adoption is done, the slot table was seen and every peer's snapshot is in; or until time is up."""

    def __init__(self) -> None:
        self.has_converged = False
        self.adoption_done = False
        """The engine has named every session that it took over."""
        self.slots_seen = False
        """Who else lives is known."""
        self._began_at: float | None = None

    def converges(self, waits_for_others: bool, now: float) -> bool:
        """Looks again after an input; True once."""
        if self.has_converged:
            return False
        if self._began_at is None:
            self._began_at = now
        whole = self.adoption_done and self.slots_seen and not waits_for_others
        self.has_converged = whole or now - self._began_at >= CONVERGENCE_SECONDS
        return self.has_converged
