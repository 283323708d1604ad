"""What each request of the administration interface means: rooms, one session's statistics, moves. Owns the order of
the checks; must never keep anything between two requests. Read `relay/admin/views.py` next, for what is shown.
"""

from millrace.relay.access.admission import room_name
from millrace.relay.access.rules import is_named
from millrace.relay.admin.views import room_view, sessions_view
from millrace.relay.contract.access import HookQuestion, Visitor
from millrace.relay.contract.effects import CloseRoomEverywhere, Reply
from millrace.relay.contract.ids import Slot
from millrace.relay.contract.inputs import MoveAsked, RoomDeleted, RoomsAsked, RoomsListed, SessionAsked
from millrace.relay.contract.problems import json_reply
from millrace.relay.contract.refusal import Refusal
from millrace.relay.ledger import Ledger
from millrace.relay.routing import find_session

ROOM_UNKNOWN = Refusal(404, "room-unknown", "Nobody is in a room of this name.")


def handle_rooms_asked(ledger: Ledger, request: RoomsAsked) -> None:
    """GET of all rooms, or of one with its sessions."""
    if request.room is None:
        rooms = sorted(ledger.directory.rooms())
        ledger.add(json_reply(request.request, [room_view(name, room, with_sessions=True) for name, room in rooms]))
        return
    name = room_name(request.room)
    room = None if name is None else ledger.directory.room(name)
    if name is None or room is None:
        ledger.refuse(request.request, ROOM_UNKNOWN)
    else:
        view = room_view(name, room, with_sessions=True) | {"sessions": sessions_view(room)}
        ledger.add(json_reply(request.request, view))


def handle_rooms_listed(ledger: Ledger, request: RoomsListed) -> None:
    """GET of the rooms that the public page shows: those that the visitor may see."""
    visible = ledger.gate.visible_rooms(Visitor(request.token, request.address), ledger.now)
    if isinstance(visible, Refusal):
        ledger.refuse(request.request, visible)
        return
    if isinstance(visible, HookQuestion):
        ledger.ask_hook(visible, request)
        return
    rooms = sorted(ledger.directory.rooms())
    shown = [room_view(name, room, with_sessions=False) for name, room in rooms if is_named(name, visible)]
    ledger.add(json_reply(request.request, shown))


def handle_room_deleted(ledger: Ledger, request: RoomDeleted) -> None:
    """Ends every session of a room, on all workers."""
    name = room_name(request.room)
    if name is None or ledger.directory.room(name) is None:
        ledger.refuse(request.request, ROOM_UNKNOWN)
        return
    ledger.add(CloseRoomEverywhere(name))
    ledger.close_room(name)
    ledger.add(Reply(request.request, 204))


def handle_session_asked(ledger: Ledger, request: SessionAsked) -> None:
    """GET of a session: answered with the engine's next report, or at once when the session is over."""
    session = find_session(ledger, request)
    if session is None:
        return
    command = ledger.reports.ask(request.request, session, ledger.now.steady)
    if command is None:
        ledger.refuse(request.request, Refusal(503, "busy", "Too many reports are under way."))
    else:
        ledger.submit(command)


def handle_move_asked(ledger: Ledger, request: MoveAsked) -> None:
    """POST that moves a session to another slot: answered when the outcome is known."""
    session = find_session(ledger, request)
    if session is None:
        return
    slot = Slot(request.slot)
    if slot == ledger.slot:
        ledger.refuse(request.request, Refusal(409, "already-there", "The session is in that slot."))
    elif slot not in ledger.directory.living():
        ledger.refuse(request.request, Refusal(409, "no-worker", "No worker lives in that slot."))
    elif slot in ledger.moves.closed:
        ledger.refuse(request.request, Refusal(409, "slot-drained", "That slot is to have no sessions."))
    else:
        ledger.moves.waiting[session.id] = request.request
        ledger.move(session, slot)
