"""Whose session a request is for: ours, on its way to another slot, another worker's, or over. Owns where such a
request goes, for every protocol; must never know what the request wants. Read `relay/session/moves.py` next, for
sessions on their way.
"""

from millrace.relay.access.admission import session_slot
from millrace.relay.contract.effects import PassOn
from millrace.relay.contract.ids import RequestId, Slot
from millrace.relay.contract.inputs import SessionAsked, SessionRequest
from millrace.relay.contract.problems import json_reply, problem, session_replaced, session_unknown
from millrace.relay.contract.refusal import Refusal
from millrace.relay.contract.tombstone import Tombstone, tombstone_view
from millrace.relay.ledger import Ledger
from millrace.relay.load.counters import Count
from millrace.relay.session.sessions import REPLACED, Session


def find_session(ledger: Ledger, request: SessionRequest) -> Session | None:
    """Returns the session when it is ours and not on its way. Else returns None, and the request is dealt with: held
    until the move is over, passed on to the owner, answered with the tombstone, or refused.
    """
    named = session_slot(request.session)
    if named is not None:
        session_id, opened_in = named
        session = ledger.sessions.get(session_id)
        if session is not None and session.leaving is not None:
            ledger.moves.held.setdefault(session_id, []).append(request)
            return None
        if session is not None:
            return session
        ended = ledger.tombstones.get(session_id)
        if ended is not None:
            answer_ended(ledger, request, ended)
            return None
        # The slot that opened the session has it, unless a fact or a move says otherwise.
        slot = ledger.moves.moved_to(session_id)
        slot = ledger.directory.holder(session_id) if slot is None else slot
        slot = opened_in if slot is None else slot
        if slot != ledger.slot and ledger.directory.is_alive(slot):
            pass_on(ledger, request.request, slot)
            return None
    ledger.add(session_unknown(request.request))
    return None


def answer_ended(ledger: Ledger, request: SessionRequest, ended: Tombstone) -> None:
    """Answers a request for a session that is over; every worker gives the same answer, wherever the session was."""
    if isinstance(request, SessionAsked):
        ledger.add(json_reply(request.request, tombstone_view(ended)))
        return
    ledger.add(session_replaced(request.request) if ended.cause == REPLACED else session_unknown(request.request))


def pass_on(ledger: Ledger, request: RequestId, slot: Slot, otherwise: Refusal | None = None) -> None:
    """Has the worker in `slot` answer the request; the client gets `otherwise` when that worker does not answer, or
    when the request was passed on to us already.
    """
    ledger.counters.count(Count.REQUESTS_PASSED_ON)
    refused = None
    if otherwise is not None:
        refused = problem(request, otherwise.status, otherwise.reason, otherwise.detail)
    ledger.add(PassOn(request, slot, refused))
