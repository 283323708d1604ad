"""Whether a room may count on a publisher: what follows from its silence and from its first packet afterwards. Owns how
long one that returns has to send before viewers come back to it; must never know who competes with it. Read
`relay/membership/room.py` next, which chooses among the publishers of a room.

    sends ---- PublisherSilent ----> silent ---- PublisherHeard ----> returns ---- return_seconds ----> sends
                                       ^                                 |
                                       +-------- PublisherSilent --------+   and twice as long the next time
"""

from millrace.relay.contract.facts import Sending
from millrace.relay.session.sessions import Session

RETURN_SECONDS = 2.0
"""How long a publisher has to send after a first silence, before it takes the viewers back from one that sends."""
MAX_RETURN_SECONDS = 32.0
RELAPSE_SECONDS = 60.0
"""Who falls silent again this soon after it was relied on has to send twice as long, up to MAX_RETURN_SECONDS."""


def note_silent(session: Session, now: float) -> bool:
    """Handles PublisherSilent; True when `session.sending` changed. `now` is CLOCK_MONOTONIC, seconds."""
    if session.sending is Sending.SILENT:
        return False
    relapses = session.relied_on_at is not None and now - session.relied_on_at < RELAPSE_SECONDS
    session.return_seconds = min(2 * session.return_seconds, MAX_RETURN_SECONDS) if relapses else RETURN_SECONDS
    session.sending = Sending.SILENT
    return True


def note_heard(session: Session, now: float) -> bool:
    """Handles PublisherHeard; True when `session.sending` changed."""
    if session.sending is not Sending.SILENT:
        return False
    session.sending = Sending.RETURNS
    session.relied_on_at = now + max(session.return_seconds, RETURN_SECONDS)
    return True


def note_time(session: Session, now: float) -> bool:
    """Called about once a second; True when a publisher that returned is relied on again."""
    if session.sending is not Sending.RETURNS:
        return False
    if session.relied_on_at is None:
        # It was adopted while it returned.
        session.relied_on_at = now + RETURN_SECONDS
    if now < session.relied_on_at:
        return False
    session.sending = Sending.SENDS
    return True
