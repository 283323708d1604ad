"""What each HTTP request means: WHIP and WHEP (RFC 9725) and the administration interface. Owns the order of the
checks and the answers' headers; must never keep anything between two requests. Read `relay/ledger.py` next, which
does.
"""

from dataclasses import replace

from millrace.relay.access.admission import admit, deny_kinds, deny_touch, room_name, room_of_bearer, session_slot
from millrace.relay.admin.views import room_view, sessions_view
from millrace.relay.contract.commands import RestartIce
from millrace.relay.contract.effects import CloseRoomEverywhere, PassOn, Reply
from millrace.relay.contract.ids import RequestId, SessionId, Slot
from millrace.relay.contract.inputs import (
    Deleted,
    MoveAsked,
    Offered,
    Patched,
    RoomDeleted,
    RoomsAsked,
    RoomsListed,
    SessionAsked,
    Touch,
)
from millrace.relay.contract.problems import json_reply, problem, session_replaced, session_unknown
from millrace.relay.contract.protocol import Protocol
from millrace.relay.contract.refusal import Refusal
from millrace.relay.contract.tombstone import Tombstone, tombstone_view
from millrace.relay.ledger import Ledger
from millrace.relay.load.balance import with_room
from millrace.relay.load.counters import Count
from millrace.relay.load.pressure import Pressure
from millrace.relay.membership.room import joins_at
from millrace.relay.negotiation.answering import published_kinds
from millrace.relay.sdp.fragment import Fragment, restart_answer
from millrace.relay.sdp.offer import parse_offer
from millrace.relay.session.opening import Opened
from millrace.relay.session.sessions import REPLACED, Session
from millrace.relay.whip.patch import Repeated, Restart, Trickle, read_patch

OVERLOADED = {
    Pressure.DESCRIPTORS: "This worker has hardly any descriptor left.",
    Pressure.MEMORY: "This machine has hardly any memory left.",
    Pressure.LATE: "This worker has more to do than it can.",
}
DRAINING = Refusal(503, "draining", "This server is about to stop; rooms that are open go on for a while.")
ROOM_UNKNOWN = Refusal(404, "room-unknown", "Nobody is in a room of this name.")


def offered(ledger: Ledger, asked: Offered) -> None:
    """POST: 201 with the answer (RFC 9725 section 4.2)."""
    if ledger.slot in ledger.moves.closed and not ledger.stopping:
        elsewhere = ledger.moves.target(ledger.directory, ledger.slot)
        if elsewhere is not None:
            _pass_on(ledger, asked.request, elsewhere)
        else:
            ledger.refuse(asked.request, Refusal(503, "no-slot", "No worker takes sessions now."))
        return
    shortage = None if ledger.stopping else _shortage(ledger)
    # Memory is short for all, and who is passed on holds a connection, and so a descriptor, here meanwhile.
    if shortage is not None and ledger.pressure in (None, Pressure.LATE):
        roomy = with_room(ledger.directory.loads(), ledger.config.limits)
        elsewhere = ledger.moves.target(ledger.directory, ledger.slot, roomy)
        if elsewhere is not None:
            _pass_on(ledger, asked.request, elsewhere, shortage)
            return
    if shortage is not None and ledger.pressure is not None:
        ledger.counters.turned_away(ledger.pressure)
    opened = shortage or _open(ledger, asked)
    if isinstance(opened, Refusal):
        ledger.refuse(asked.request, opened)
        return
    ledger.open(opened)
    session = opened.session
    headers = (
        ("Content-Type", "application/sdp"),
        ("Location", f"/{session.protocol}/{session.room}/{session.id}"),
        ("ETag", session.etag),
        ("Accept-Patch", "application/trickle-ice-sdpfrag"),
        *ledger.links,
    )
    ledger.add(Reply(asked.request, 201, headers, opened.answer.encode()))


def _shortage(ledger: Ledger) -> Refusal | None:
    """Why this worker can let nobody in, if so."""
    if ledger.pressure is not None:
        return Refusal(503, "overloaded", OVERLOADED[ledger.pressure])
    if len(ledger.sessions) >= ledger.config.limits.sessions_per_worker:
        return Refusal(503, "sessions-full", "This worker takes no further session now.")
    return None


def _open(ledger: Ledger, asked: Offered) -> Opened | Refusal:
    # The cheapest first: a flood is refused before its tokens and offers cost anything.
    if ledger.stopping:
        return DRAINING
    guest = admit(asked, ledger.config.auth.keys, ledger.numbers.participant, ledger.now.unix)
    if isinstance(guest, Refusal):
        return guest
    # Who was here may come back, say after a reload. Only now: strangers need not learn which rooms there are.
    if ledger.draining and ledger.directory.room(guest.room) is None:
        return DRAINING
    offer = parse_offer(asked.sdp, ledger.sdp_limits)
    if isinstance(offer, Refusal):
        return offer
    if guest.protocol is Protocol.WHIP:
        guest = replace(guest, now=joins_at(ledger.directory.room(guest.room), guest.now))
        return deny_kinds(guest, published_kinds(offer)) or ledger.opening.publisher(
            guest, offer, ledger.sessions.publications
        )
    return ledger.opening.viewer(guest, offer, ledger.watched(guest.room, guest.watches))


def touched(ledger: Ledger, asked: Touch) -> None:
    """Any request for a session."""
    match asked:
        case Patched():
            _patched(ledger, asked)
        case Deleted():
            _deleted(ledger, asked)
        case SessionAsked():
            _session_asked(ledger, asked)
        case MoveAsked():
            _move_asked(ledger, asked)


def touched_while_leaving(ledger: Ledger, session: SessionId) -> None:
    """It is known now where the session is: the requests that waited for that."""
    for asked in ledger.moves.held.pop(session, []):
        touched(ledger, asked)


def _patched(ledger: Ledger, asked: Patched) -> None:
    """PATCH: trickled candidates or an ICE restart. Whatever is refused leaves the session as it was."""
    session = _find(ledger, asked)
    if session is None:
        return
    denial = deny_touch(session, asked.token, ledger.config.auth.keys, ledger.now.unix)
    patch = denial or read_patch(session, asked.if_match, asked.fragment, ledger.sdp_limits)
    match patch:
        case Refusal():
            ledger.refuse(asked.request, patch)
        case Trickle():
            ledger.add(Reply(asked.request, 204))
        case Restart():
            _restart(ledger, session, patch)
            _answer_restart(ledger, asked.request, session, patch.fragment)
        case Repeated():
            _answer_restart(ledger, asked.request, session, patch.fragment)


def _restart(ledger: Ledger, session: Session, patch: Restart) -> None:
    """RFC 9725 section 4.3.3: a new ICE session, hence a new entity-tag."""
    local = ledger.opening.local()
    session.remote_ufrag, session.remote_pwd = patch.remote_ufrag, patch.remote_pwd
    session.restarted_with = (local.ufrag, local.pwd)
    session.etag = ledger.numbers.etag()
    ledger.keep(session)
    ledger.submit(RestartIce(session.transport, local.ufrag, local.pwd, patch.remote_ufrag, patch.remote_pwd))
    ledger.counters.count(Count.ICE_RESTARTS)


def _answer_restart(ledger: Ledger, request: RequestId, session: Session, fragment: Fragment) -> None:
    """The same each time that it is asked for."""
    local = ledger.opening.local(session.restarted_with)
    headers = (("Content-Type", "application/trickle-ice-sdpfrag"), ("ETag", session.etag))
    ledger.add(Reply(request, 200, headers, restart_answer(fragment, session.mids, local).encode()))


def _deleted(ledger: Ledger, asked: Deleted) -> None:
    """DELETE of a session."""
    session = _find(ledger, asked)
    if session is None:
        return
    denial = None if asked.by_admin else deny_touch(session, asked.token, ledger.config.auth.keys, ledger.now.unix)
    if denial is not None:
        ledger.refuse(asked.request, denial)
        return
    ledger.close(session, "deleted_by_admin" if asked.by_admin else "deleted")
    ledger.add(Reply(asked.request, 200))


def rooms_asked(ledger: Ledger, asked: RoomsAsked) -> None:
    """GET of all rooms or of one."""
    if asked.room is None:
        rooms = sorted(ledger.directory.rooms())
        ledger.add(json_reply(asked.request, [room_view(name, room, with_sessions=True) for name, room in rooms]))
        return
    name = room_name(asked.room)
    room = None if name is None else ledger.directory.room(name)
    if name is None or room is None:
        ledger.refuse(asked.request, ROOM_UNKNOWN)
    else:
        view = room_view(name, room, with_sessions=True) | {"sessions": sessions_view(room)}
        ledger.add(json_reply(asked.request, view))


def rooms_listed(ledger: Ledger, asked: RoomsListed) -> None:
    """GET of the rooms that the public side shows: all, or the one that a token is for."""
    keys = ledger.config.auth.keys
    visible = room_of_bearer(asked.token, keys, ledger.now.unix) if keys else None
    if isinstance(visible, Refusal):
        ledger.refuse(asked.request, visible)
        return
    rooms = sorted(ledger.directory.rooms())
    shown = [room_view(name, room, with_sessions=False) for name, room in rooms if visible in (None, name)]
    ledger.add(json_reply(asked.request, shown))


def room_deleted(ledger: Ledger, asked: RoomDeleted) -> None:
    """Ends every session of a room, on all workers."""
    name = room_name(asked.room)
    if name is None or ledger.directory.room(name) is None:
        ledger.refuse(asked.request, ROOM_UNKNOWN)
        return
    ledger.add(CloseRoomEverywhere(name))
    ledger.close_room(name)
    ledger.add(Reply(asked.request, 204))


def _session_asked(ledger: Ledger, asked: SessionAsked) -> None:
    """GET of a session: answered when the engine has reported, at once when it is over."""
    session = _find(ledger, asked)
    if session is None:
        return
    command = ledger.reports.ask(asked.request, session, ledger.now.steady)
    if command is None:
        ledger.refuse(asked.request, Refusal(503, "busy", "Too many reports are under way."))
    else:
        ledger.submit(command)


def _move_asked(ledger: Ledger, asked: MoveAsked) -> None:
    """Of a session to another slot: answered when it is known what came of it."""
    session = _find(ledger, asked)
    if session is None:
        return
    slot = Slot(asked.slot)
    if slot == ledger.slot:
        ledger.refuse(asked.request, Refusal(409, "already-there", "The session is in that slot."))
    elif slot not in ledger.directory.living():
        ledger.refuse(asked.request, Refusal(409, "no-worker", "No worker lives in that slot."))
    elif slot in ledger.moves.closed:
        ledger.refuse(asked.request, Refusal(409, "slot-drained", "That slot is to have no sessions."))
    else:
        ledger.moves.waiting[session.id] = asked.request
        ledger.give(session, slot)


def _find(ledger: Ledger, asked: Touch) -> Session | None:
    """Our session; else the request is passed on to its owner, put off, refused, or answered with the session's end."""
    named = session_slot(asked.session)
    if named is not None:
        session_id, opened_in = named
        session = ledger.sessions.get(session_id)
        if session is not None and session.leaving is not None:
            ledger.moves.held.setdefault(session_id, []).append(asked)
            return None
        if session is not None:
            return session
        ended = ledger.ends.get(session_id)
        if ended is not None:
            _answer_end(ledger, asked, ended)
            return None
        # Who opened it has it, unless somebody was heard to have it since.
        slot = ledger.moves.whither(session_id)
        slot = ledger.directory.holder(session_id) if slot is None else slot
        slot = opened_in if slot is None else slot
        if slot != ledger.slot and ledger.directory.is_alive(slot):
            _pass_on(ledger, asked.request, slot)
            return None
    ledger.counters.refused(404)
    ledger.add(session_unknown(asked.request))
    return None


def _answer_end(ledger: Ledger, asked: Touch, ended: Tombstone) -> None:
    """The same from any worker, wherever the session was."""
    if isinstance(asked, SessionAsked):
        ledger.add(json_reply(asked.request, tombstone_view(ended)))
        return
    ledger.counters.refused(404)
    ledger.add(session_replaced(asked.request) if ended.cause == REPLACED else session_unknown(asked.request))


def _pass_on(ledger: Ledger, request: RequestId, slot: Slot, otherwise: Refusal | None = None) -> None:
    ledger.counters.count(Count.REQUESTS_PASSED_ON)
    refused = None
    if otherwise is not None:
        refused = problem(request, otherwise.status, otherwise.reason, otherwise.detail)
    ledger.add(PassOn(request, slot, refused))
