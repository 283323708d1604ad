"""What each request of WHIP and WHEP means (RFC 9725): POST, PATCH, DELETE. Owns the order of the checks and the
answers' headers; must never keep anything between two requests. Read `relay/ledger.py` next, which does, and
`relay/routing.py` for whose session a request is for.
"""

from dataclasses import replace
from urllib.parse import quote

from millrace.relay.access.admission import admit, deny_kinds, deny_session_request
from millrace.relay.contract.access import HookQuestion
from millrace.relay.contract.commands import RestartIce
from millrace.relay.contract.effects import Reply
from millrace.relay.contract.inputs import Deleted, Offered, Patched
from millrace.relay.contract.protocol import Protocol
from millrace.relay.contract.refusal import Refusal
from millrace.relay.ledger import Ledger
from millrace.relay.load.balance import with_room
from millrace.relay.load.counters import Count
from millrace.relay.load.pressure import Pressure
from millrace.relay.membership.room import joins_at
from millrace.relay.negotiation.answering import published_kinds
from millrace.relay.routing import find_session, pass_on
from millrace.relay.sdp.fragment import Fragment, restart_answer
from millrace.relay.sdp.offer import parse_offer
from millrace.relay.session.ice_servers import link_headers
from millrace.relay.session.opening import Guest, OpenedSession
from millrace.relay.session.sessions import Session
from millrace.relay.session.shares import makes_room, source_of
from millrace.relay.whip.patch import Repeated, Restart, Trickle, read_patch

OVERLOADED = {
    Pressure.DESCRIPTORS: "This worker has hardly any descriptor left.",
    Pressure.MEMORY: "This machine has hardly any memory left.",
    Pressure.LATE: "This worker has more to do than it can.",
}
FULL = Refusal(503, "sessions-full", "This worker takes no further session now.")
OVER_SHARE = Refusal(
    429, "over-share", "This server is full, and nobody has more sessions that do not connect than this client."
)
EVICTED = "evicted"
"""The cause of the end of a session that made room."""
DRAINING = Refusal(503, "draining", "This server is about to stop; rooms that are open go on for a while.")


def handle_offered(ledger: Ledger, request: Offered) -> None:
    """POST: 201 with the answer (RFC 9725 section 4.2). A worker that may not open a session passes the request on."""
    if ledger.slot in ledger.moves.closed and not ledger.stopping:
        elsewhere = ledger.moves.target(ledger.directory, ledger.slot)
        if elsewhere is not None:
            pass_on(ledger, request.request, elsewhere)
        else:
            ledger.refuse(request.request, Refusal(503, "no-slot", "No worker takes sessions now."))
        return
    shortage = None if ledger.stopping else _shortage(ledger)
    # Not when memory is short, which all workers share, nor descriptors: a request that is passed on holds one here.
    if shortage is not None and ledger.pressure in (None, Pressure.LATE):
        roomy = with_room(ledger.directory.loads(), ledger.config.limits)
        elsewhere = ledger.moves.target(ledger.directory, ledger.slot, roomy)
        if elsewhere is not None:
            pass_on(ledger, request.request, elsewhere, shortage)
            return
    if shortage is not None and ledger.pressure is not None:
        ledger.counters.session_rejected(ledger.pressure)
    # Of a full worker's sessions one may have to make room, which is known when the client is.
    is_full = shortage is FULL and any(not one.connected for one in ledger.sessions.all())
    opened = (None if is_full else shortage) or _open(ledger, request)
    if is_full and isinstance(opened, OpenedSession):
        opened = _make_room(ledger, opened) or opened
    if isinstance(opened, Refusal):
        ledger.refuse(request.request, opened)
        return
    if isinstance(opened, HookQuestion):
        ledger.ask_hook(opened, request)
        return
    ledger.open(opened)
    session = opened.session
    room = quote(session.room, safe="")
    headers = (
        ("Content-Type", "application/sdp"),
        ("Location", f"{ledger.config.http.public_path}/{session.protocol}/{room}/{session.id}"),
        ("ETag", session.etag),
        ("Accept-Patch", "application/trickle-ice-sdpfrag"),
        *link_headers(ledger.config.ice, session.participant, ledger.now.unix),
    )
    ledger.add(Reply(request.request, 201, headers, opened.answer.encode()))


def handle_patched(ledger: Ledger, request: Patched) -> None:
    """PATCH: trickled candidates (204) or an ICE restart (200). A refused PATCH leaves the session as it was."""
    session = find_session(ledger, request)
    if session is None:
        return
    denial = deny_session_request(session, request.token, ledger.config.auth, ledger.now)
    patch = denial or read_patch(session, request.if_match, request.fragment, ledger.sdp_limits)
    match patch:
        case Refusal():
            ledger.refuse(request.request, patch)
        case Trickle():
            ledger.add(Reply(request.request, 204))
        case Restart():
            _restart(ledger, session, patch)
            _answer_restart(ledger, request, session, patch.fragment)
        case Repeated():
            _answer_restart(ledger, request, session, patch.fragment)


def handle_deleted(ledger: Ledger, request: Deleted) -> None:
    """DELETE: 200, and the session ends."""
    session = find_session(ledger, request)
    if session is None:
        return
    if not request.by_admin:
        denial = deny_session_request(session, request.token, ledger.config.auth, ledger.now)
        if denial is not None:
            ledger.refuse(request.request, denial)
            return
    ledger.close(session, "deleted_by_admin" if request.by_admin else "deleted")
    ledger.add(Reply(request.request, 200))


def _shortage(ledger: Ledger) -> Refusal | None:
    """Why this worker can open no session now; None when it can."""
    if ledger.pressure is not None:
        return Refusal(503, "overloaded", OVERLOADED[ledger.pressure])
    if len(ledger.sessions) >= ledger.config.limits.sessions_per_worker:
        return FULL
    return None


def _make_room(ledger: Ledger, opened: OpenedSession) -> Refusal | None:
    """Ends a session that does not connect, so that a new one can take its place; else returns why the new one is not
    taken, and frees its numbers.
    """
    oldest = makes_room(opened.session, ledger.sessions.all(), ledger.now.unix)
    if isinstance(oldest, Session):
        ledger.counters.count(Count.SESSIONS_EVICTED)
        ledger.close(oldest, EVICTED)
        return None
    for publication in opened.session.publications.values():
        ledger.numbers.release_logs(publication.logs)
    ledger.numbers.release_ssrcs(opened.session.ssrcs)
    return OVER_SHARE if oldest else FULL


def _open(ledger: Ledger, request: Offered) -> OpenedSession | Refusal | HookQuestion:
    # The cheapest first: a flood is refused before its tokens and offers cost anything.
    if ledger.stopping:
        return DRAINING
    guest = admit(request, ledger.gate, ledger.numbers.participant, ledger.now)
    if not isinstance(guest, Guest):
        return guest
    # Into an open room clients may come back, say after a reload of their page. Checked after the token, as strangers
    # need not learn which rooms there are.
    if ledger.draining and ledger.directory.room(guest.room) is None:
        return DRAINING
    guest = replace(guest, reached_at=request.reached_at, source=source_of(request.address))
    offer = parse_offer(request.sdp, ledger.sdp_limits)
    if isinstance(offer, Refusal):
        return offer
    if guest.protocol is Protocol.WHIP:
        guest = replace(guest, joined_at=joins_at(ledger.directory.room(guest.room), guest.joined_at))
        return deny_kinds(guest, published_kinds(offer)) or ledger.opener.publisher(
            guest, offer, ledger.sessions.publications
        )
    return ledger.opener.viewer(guest, offer, ledger.watched(guest.room, guest.watches))


def _restart(ledger: Ledger, session: Session, patch: Restart) -> None:
    """Restarts ICE; a new ICE session has a new entity-tag (RFC 9725 section 4.3.3)."""
    local = ledger.opener.local()
    session.remote_ufrag, session.remote_pwd = patch.remote_ufrag, patch.remote_pwd
    session.restarted_with = (local.ufrag, local.pwd)
    session.etag = ledger.numbers.etag()
    ledger.mark_unsaved(session)
    ledger.submit(RestartIce(session.transport, local.ufrag, local.pwd, patch.remote_ufrag, patch.remote_pwd))
    ledger.counters.count(Count.ICE_RESTARTS)


def _answer_restart(ledger: Ledger, request: Patched, session: Session, fragment: Fragment) -> None:
    """Answers a restart, in the same words each time that the client repeats it."""
    local = ledger.opener.local(session.restarted_with, request.reached_at)
    headers = (("Content-Type", "application/trickle-ice-sdpfrag"), ("ETag", session.etag))
    ledger.add(Reply(request.request, 200, headers, restart_answer(fragment, session.mids, local).encode()))
