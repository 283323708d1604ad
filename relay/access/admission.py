"""Who may open a session, and who may change or end one: names, tokens, identities. Owns those rules; must never know
SDP or the tables. Read `relay/access/grants.py` next, which reads the tokens.
"""

import re
from collections.abc import Callable, Iterable, Mapping

from millrace.relay.access.grants import SOURCE_KINDS, Denial, Grant, check, is_identity
from millrace.relay.contract.commands import MediaKind
from millrace.relay.contract.ids import ParticipantId, RoomName, SessionId, Slot
from millrace.relay.contract.inputs import Offered
from millrace.relay.contract.protocol import Protocol
from millrace.relay.contract.refusal import Refusal
from millrace.relay.session.opening import Guest
from millrace.relay.session.sessions import Session

_ROOM = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.-]{1,128}")
"""A room's name stands in a URL as it is. Not `.` or `..`, which clients remove from a path (RFC 3986 section 5.2.4).
"""
_SESSION = re.compile(r"[0-9a-f]{2}\.[A-Za-z0-9_-]{22,64}")


def room_name(text: str) -> RoomName | None:
    """The text as a room's name; None when it cannot be one."""
    return RoomName(text) if _ROOM.fullmatch(text) else None


def session_slot(text: str) -> tuple[SessionId, Slot] | None:
    """A session's id and the slot that opened it; None when the text cannot be a session's id."""
    return (SessionId(text), Slot(int(text[:2], 16))) if _SESSION.fullmatch(text) else None


def admit(
    request: Offered, keys: Mapping[str, str], random_participant: Callable[[], ParticipantId], now: float
) -> Guest | Refusal:
    """Checks names and token of an offer. Returns who is admitted, or why nobody is; `now` is Unix time."""
    room = room_name(request.room)
    if room is None:
        return Refusal(400, "room-name", "A room's name is 1 to 128 of the characters A-Z a-z 0-9 _ . -")
    watches = None
    if request.participant is not None:
        if not is_identity(request.participant):
            return Refusal(400, "participant-name", "A participant has 1 to 256 characters, none a control.")
        watches = ParticipantId(request.participant)
    if not keys:
        return Guest(request.protocol, room, random_participant(), watches, now)
    grant = check(request.token, keys, now)
    denial = grant if isinstance(grant, Denial) else _denial(grant, request.protocol, room)
    if denial is not None:
        return Refusal(denial.status, denial.reason, denial.detail)
    assert isinstance(grant, Grant)
    return Guest(request.protocol, room, ParticipantId(grant.identity), watches, now, grant.sources or ())


def deny_kinds(guest: Guest, kinds: Iterable[MediaKind]) -> Refusal | None:
    """Why the guest's token does not let it publish these kinds of media; None when it does."""
    if not guest.sources:
        return None
    granted = [source for source in guest.sources if source in SOURCE_KINDS]
    for kind in kinds:
        if kind not in (SOURCE_KINDS[source] for source in granted):
            listed = ", ".join(granted) or "no source that is known here"
            return Refusal(403, "source-not-granted", f"The offer sends {kind}; the token grants {listed}.")
    return None


def deny_session_request(session: Session, token: str | None, keys: Mapping[str, str], now: float) -> Refusal | None:
    """Why this token may not change or end the session; None when it may. A token may have expired since the POST:
    calls last longer than tokens, and a client has no other for an ICE restart.
    """
    if not keys:
        return None
    grant = check(token, keys, now, opened_at=session.opened_at)
    denial = grant if isinstance(grant, Denial) else _denial(grant, session.protocol, session.room)
    if denial is not None:
        return Refusal(denial.status, denial.reason, denial.detail)
    assert isinstance(grant, Grant)
    if grant.identity != session.participant:
        return Refusal(403, "other-identity", "The session was opened with another identity's token.")
    return None


def room_of_bearer(token: str | None, keys: Mapping[str, str], now: float) -> str | Refusal:
    """The room of which this token's bearer may see who is in it."""
    grant = check(token, keys, now)
    denial = grant if isinstance(grant, Denial) else grant.join_denial(grant.room)
    if denial is not None:
        return Refusal(denial.status, denial.reason, denial.detail)
    assert isinstance(grant, Grant)
    return grant.room


def _denial(grant: Grant, protocol: Protocol, room: RoomName) -> Denial | None:
    return grant.publish_denial(room) if protocol is Protocol.WHIP else grant.subscribe_denial(room)
