"""What becomes of the sessions of a worker that died in this slot. Owns the rebuilding of their tables from what was
kept, and gives up the ones that cannot be; must never touch another session for it. Read `relay/session/record.py` for
the record and `relay/membership/convergence.py` for when adopted viewers are fed anew.
"""

from millrace.relay.contract.codec import Unreadable
from millrace.relay.contract.commands import CloseTransport
from millrace.relay.contract.effects import SessionsAdopted
from millrace.relay.contract.events import AdoptionDone, TransportAdopted
from millrace.relay.ledger import Ledger
from millrace.relay.load.counters import Count
from millrace.relay.session.record import unpack_session
from millrace.relay.session.sessions import Session


def transport_adopted(ledger: Ledger, event: TransportAdopted) -> None:
    """One session that its engine goes on with."""
    session = _rebuilt(event)
    if session is None or not ledger.adopt(session):
        # Its client is told at once, so that it comes again rather than sit with a session that nobody can change.
        ledger.counters.count(Count.SESSIONS_GIVEN_UP)
        ledger.submit(CloseTransport(event.transport))


def adoption_done(ledger: Ledger, event: AdoptionDone) -> None:
    """There are no more."""
    ledger.settling.adoption_done = True
    if event.adopted or event.lost:
        ledger.add(SessionsAdopted(event.adopted, event.lost))


def _rebuilt(event: TransportAdopted) -> Session | None:
    """None when the record does not hold, or the engine has something else than it says."""
    try:
        session = unpack_session(event.record)
    except Unreadable:
        return None
    has = (event.transport, set(event.publications), set(event.subscriptions))
    said = (session.transport, set(session.publications), {one.subscription for one in session.receiving})
    session.connected = event.connected
    return session if has == said else None
