"""What each event of the engine means for sessions. Owns which events end a session, and which ones it survives; must
never know HTTP. Read `relay/ledger.py` next, which changes the tables.
"""

from millrace.relay.admin.views import session_view
from millrace.relay.contract.commands import CloseTransport
from millrace.relay.contract.effects import EngineRefused, SessionsAdopted
from millrace.relay.contract.events import (
    AdoptionDone,
    CodecInUse,
    CommandFailed,
    Event,
    MoveDone,
    Outcome,
    PublicationEnded,
    PublicationStarted,
    PublisherHeard,
    PublisherSilent,
    TransportAdopted,
    TransportClosed,
    TransportConnected,
    TransportReport,
    TransportStalled,
)
from millrace.relay.contract.problems import json_reply
from millrace.relay.ledger import Ledger
from millrace.relay.load.counters import ENGINE_REFUSED, Contract, Count
from millrace.relay.publishing import note_heard, note_silent, pause, resume, use_codec
from millrace.relay.session.record import rebuild

OPENING_COMMANDS = frozenset({"OpenTransport", "Publish", "Subscribe"})
"""When one of these fails, the session is not what its answer promised, and is closed. It survives the failure of any
other command.
"""


def handle_event(ledger: Ledger, event: Event) -> None:
    """Handles one event. An event of a session that has ended meanwhile is dropped, which is no error."""
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
                resume(ledger, session, event.publication)
        case PublicationEnded():
            if (session := ledger.sessions.of_thing(event.publication)) is not None:
                pause(ledger, session, event.publication)
        case PublisherSilent():
            if (session := ledger.sessions.of_thing(event.transport)) is not None:
                note_silent(ledger, session)
        case PublisherHeard():
            if (session := ledger.sessions.of_thing(event.transport)) is not None:
                note_heard(ledger, session)
        case CodecInUse():
            if (session := ledger.sessions.of_thing(event.publication)) is not None:
                use_codec(ledger, session, event.publication, event.payload_type)
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
        # The transport's end was reported before this event; or the session is on its way to another slot.
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
        # Closing tells the client at once, so that it opens a new session instead of keeping one that no worker has.
        ledger.counters.count(Count.SESSIONS_GIVEN_UP)
        ledger.submit(CloseTransport(event.transport))


def _adoption_done(ledger: Ledger, event: AdoptionDone) -> None:
    ledger.convergence.adoption_done = True
    if event.adopted or event.lost:
        ledger.add(SessionsAdopted(event.adopted, event.lost))
