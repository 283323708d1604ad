"""What each request of the administration interface means: rooms, one session's statistics, moves. Owns the order of
the checks; must never keep anything between two requests. Read `relay/ledger.py` next, which does, and
`relay/admin/views.py` for what is shown.
"""

from millrace.relay.access.admission import room_name, room_of_bearer
from millrace.relay.admin.views import room_view, sessions_view
from millrace.relay.contract.effects import CloseRoomEverywhere, Reply
from millrace.relay.contract.ids import Slot
from millrace.relay.contract.inputs import MoveAsked, RoomDeleted, RoomsAsked, RoomsListed, SessionAsked
from millrace.relay.contract.problems import json_reply
from millrace.relay.contract.refusal import Refusal
from millrace.relay.ledger import Ledger
from millrace.relay.routing import find_session

ROOM_UNKNOWN = Refusal(404, "room-unknown", "Nobody is in a room of this name.")


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


def session_asked(ledger: Ledger, asked: SessionAsked) -> None:
    """GET of a session: answered when the engine has reported, at once when it is over."""
    session = find_session(ledger, asked)
    if session is None:
        return
    command = ledger.reports.ask(asked.request, session, ledger.now.steady)
    if command is None:
        ledger.refuse(asked.request, Refusal(503, "busy", "Too many reports are under way."))
    else:
        ledger.submit(command)


def move_asked(ledger: Ledger, asked: MoveAsked) -> None:
    """Of a session to another slot: answered when it is known what came of it."""
    session = find_session(ledger, asked)
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
