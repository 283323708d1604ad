"""Who may open a session, and who may change or end one: names, tokens, identities. Owns those rules; must never know
SDP or the tables. Read `relay/access/decision.py` next, which says who may publish and watch.
"""

import re
from collections.abc import Callable, Iterable

from millrace.relay.access.decision import Admitted, Gate
from millrace.relay.access.grants import SOURCE_KINDS, Denial, check
from millrace.relay.config.model import AuthConfig
from millrace.relay.config.names import NAME_EXPECTED, is_name, is_room_name
from millrace.relay.contract.access import Action, HookQuestion, Visitor
from millrace.relay.contract.clock import Now
from millrace.relay.contract.commands import MediaKind
from millrace.relay.contract.ids import ParticipantId, RoomName, SessionId, Slot
from millrace.relay.contract.inputs import Offered
from millrace.relay.contract.protocol import Protocol
from millrace.relay.contract.refusal import Refusal
from millrace.relay.session.opening import Guest
from millrace.relay.session.sessions import Session

_SESSION = re.compile(r"[0-9a-f]{2}\.[A-Za-z0-9_-]{22,64}")
ACTIONS = {Protocol.WHIP: Action.PUBLISH, Protocol.WHEP: Action.WATCH}
"""What each protocol's POST asks for."""
MAX_HEIGHT = 16_384
"""Pixels; more than any encoder makes."""


def room_name(text: str) -> RoomName | None:
    """The text as a room's name; None when it cannot be one."""
    return RoomName(text) if is_room_name(text) else None


def session_slot(text: str) -> tuple[SessionId, Slot] | None:
    """A session's id and the slot that opened it; None when the text cannot be a session's id."""
    return (SessionId(text), Slot(int(text[:2], 16))) if _SESSION.fullmatch(text) else None


def admit(
    request: Offered, gate: Gate, random_participant: Callable[[], ParticipantId], now: Now
) -> Guest | Refusal | HookQuestion:
    """Checks names and token of an offer. Returns who is admitted, or why nobody is, or what to ask the hook first."""
    room = room_name(request.room)
    if room is None:
        return Refusal(400, "room-name", f"A room's name is {NAME_EXPECTED}, and not . or ..")
    named = None
    if request.participant is not None:
        if not is_name(request.participant):
            return Refusal(400, "participant-name", f"A participant's name is {NAME_EXPECTED}.")
        named = ParticipantId(request.participant)
    watches = named if request.protocol is Protocol.WHEP else None
    max_height = _max_height(request)
    if isinstance(max_height, Refusal):
        return max_height
    visitor = Visitor(request.token, request.address, request.is_other_site, watches)
    admitted = gate.decide(ACTIONS[request.protocol], room, visitor, now)
    if not isinstance(admitted, Admitted):
        return admitted
    participant = admitted.identity
    # Where nobody needs a token, a publisher may choose its name, and so replaces a session of its own that it lost.
    # Where some do, a chosen name could be that of a token, whose session would end.
    if participant is None and request.protocol is Protocol.WHIP and gate.auth.is_open:
        participant = named
    participant = participant or random_participant()
    grants = admitted.sources, admitted.by_key
    return Guest(request.protocol, room, participant, watches, now.unix, *grants, max_height=max_height)


def _max_height(request: Offered) -> int | Refusal | None:
    """How high a viewer shows pictures. A publisher's is not looked at."""
    text = request.max_height
    if text is None or request.protocol is not Protocol.WHEP:
        return None
    height = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    if not 1 <= height <= MAX_HEIGHT:
        return Refusal(400, "max-height", f"max-height is a number of pixels from 1 to {MAX_HEIGHT}.")
    return height


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


def deny_session_request(session: Session, token: str | None, auth: AuthConfig, now: Now) -> Refusal | None:
    """Why this token may not change or end the session; None when it may. A token may have expired since the POST:
    calls last longer than tokens, and a client has no other for an ICE restart. A session that was opened without a
    token of our keys belongs to whoever knows its id, which only its client was told.
    """
    if not auth.keys or not session.needs_token:
        return None
    grant = check(token, auth.keys, now.unix, opened_at=session.opened_at)
    if isinstance(grant, Denial):
        denial: Denial | None = grant
    elif session.protocol is Protocol.WHIP:
        denial = grant.publish_denial(session.room)
    else:
        denial = grant.subscribe_denial(session.room)
    if denial is not None:
        return Refusal(denial.status, denial.reason, denial.detail)
    assert not isinstance(grant, Denial)
    if grant.identity != session.participant:
        return Refusal(403, "other-identity", "The session was opened with another identity's token.")
    return None
