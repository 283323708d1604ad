"""What each event of the engine means for sessions. Owns the difference between a session that ended, one that is ill
and one that can live on; must never know HTTP's side of it. Read `relay/ledger.py` next.
"""

from millrace.relay.admin.views import session_view
from millrace.relay.contract.commands import CloseTransport
from millrace.relay.contract.effects import EngineRefused, SessionsAdopted
from millrace.relay.contract.events import (
    AdoptionDone,
    CommandFailed,
    Event,
    MoveDone,
    Outcome,
    PublicationEnded,
    PublicationStarted,
    TransportAdopted,
    TransportClosed,
    TransportConnected,
    TransportReport,
    TransportStalled,
)
from millrace.relay.contract.problems import json_reply
from millrace.relay.ledger import Ledger
from millrace.relay.load.counters import ENGINE_REFUSED, Contract, Count
from millrace.relay.session.record import rebuild

OPENING_COMMANDS = frozenset({"OpenTransport", "Publish", "Subscribe"})
"""Without them a session is not what its answer promised. Of the others' failure it can live on."""


def handle_event(ledger: Ledger, event: Event) -> None:
    """One event. Sessions that have ended meanwhile are unknown here, which is no error."""
    match event:
        case TransportConnected():
            if (session := ledger.sessions.of_thing(event.transport)) is not None:
                session.connected = True
        case TransportClosed():
            # After our own CloseTransport there is no session any more.
            if (session := ledger.sessions.of_thing(event.transport)) is not None:
                ledger.end(session, event.cause)
        case TransportStalled():
            session = ledger.sessions.of_thing(event.transport)
            if session is not None and session.stalled is None:
                session.stalled = event.cause
                ledger.counters.failed(event.cause)
        case PublicationStarted():
            if (session := ledger.sessions.of_thing(event.publication)) is not None:
                session.stalled = None
                ledger.resume(session, event.publication)
        case PublicationEnded():
            if (session := ledger.sessions.of_thing(event.publication)) is not None:
                ledger.pause(session, event.publication)
        case TransportReport():
            if (session := ledger.reports.take(event.request)) is not None:
                ledger.add(json_reply(event.request, session_view(session, event)))
        case CommandFailed():
            _command_failed(ledger, event)
        case TransportAdopted():
            _transport_adopted(ledger, event)
        case MoveDone():
            if (session := ledger.sessions.of_thing(event.transport)) is not None:
                ledger.move_done(session, event.slot, event.outcome)
        case AdoptionDone():
            _adoption_done(ledger, event)


def _command_failed(ledger: Ledger, event: CommandFailed) -> None:
    session = ledger.sessions.of_thing(event.id)
    if session is None or (session.leaving is not None and event.command != "MoveTransport"):
        # It crossed the end of the transport, whose event came before this one; or the session is between two slots.
        return
    if session.leaving is not None:
        ledger.move_done(session, session.leaving, Outcome.REFUSED)
    ledger.counters.count(Count.COMMANDS_REFUSED)
    ledger.add(EngineRefused(event.command, session.id, event.reason))
    if event.command in OPENING_COMMANDS:
        ledger.close(session, ENGINE_REFUSED)


def _transport_adopted(ledger: Ledger, event: TransportAdopted) -> None:
    session = rebuild(event, lambda _: ledger.counters.unknown(Contract.RECORDS))
    if session is None or not ledger.adopt(session):
        # Its client is told at once, so that it comes again rather than sit with a session that nobody can change.
        ledger.counters.count(Count.SESSIONS_GIVEN_UP)
        ledger.submit(CloseTransport(event.transport))


def _adoption_done(ledger: Ledger, event: AdoptionDone) -> None:
    ledger.convergence.adoption_done = True
    if event.adopted or event.lost:
        ledger.add(SessionsAdopted(event.adopted, event.lost))
