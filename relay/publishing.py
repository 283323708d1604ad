"""What a publisher does to its publications, told to all workers: pauses, silence, returns, another codec. Must never
know why the engine says so. Read next: `relay/session/sending.py`, when a silent publisher is relied on again.
"""

from millrace.relay.contract.facts import PublicationGone
from millrace.relay.contract.ids import PublicationId
from millrace.relay.ledger import Ledger
from millrace.relay.session import sending
from millrace.relay.session.moves import here
from millrace.relay.session.sessions import Session


def pause(ledger: Ledger, session: Session, publication: PublicationId) -> None:
    """Withdraws a publication whose streams said BYE. Browsers say it for a sender without a track, which may get
    another one.
    """
    if publication not in session.paused:
        session.paused.add(publication)
        ledger.mark_unsaved(session)
        ledger.announce(PublicationGone(session.room, publication))


def resume(ledger: Ledger, session: Session, publication: PublicationId) -> None:
    """Announces a paused publication again, as its track sends."""
    if publication in session.paused:
        session.paused.remove(publication)
        ledger.mark_unsaved(session)
        ledger.announce(session.publications[publication])


def note_silent(ledger: Ledger, session: Session) -> None:
    """Tells all workers that a publisher has fallen silent."""
    if sending.note_silent(session, ledger.now.steady):
        ledger.returning.pop(session.id, None)
        _announce_changed(ledger, session)


def note_heard(ledger: Ledger, session: Session) -> None:
    """Tells all workers that a silent publisher sends again."""
    if sending.note_heard(session, ledger.now.steady):
        ledger.returning[session.id] = session
        _announce_changed(ledger, session)


def tick_returns(ledger: Ledger) -> None:
    """Tells all workers of publishers that are relied on again; about once a second."""
    for session in list(ledger.returning.values()):
        if session.leaving is not None:
            continue
        if ledger.sessions.get(session.id) is not session:
            del ledger.returning[session.id]
        elif sending.note_time(session, ledger.now.steady):
            del ledger.returning[session.id]
            _announce_changed(ledger, session)


def use_codec(ledger: Ledger, session: Session, publication: PublicationId, payload_type: int) -> None:
    """Announces a publication again, with the codec that it sends now."""
    known = session.publications[publication]
    told = known.with_codec(payload_type)
    if told != known:
        session.publications[publication] = told
        ledger.mark_unsaved(session)
        if publication not in session.paused:
            ledger.announce(told)


def _announce_changed(ledger: Ledger, session: Session) -> None:
    ledger.mark_unsaved(session)
    ledger.announce(here(session))
