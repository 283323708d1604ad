"""The log lines of what happens to sessions, and of commands that the engine refuses. It must never log more of a
session's id than its beginning. Read next: `relay/contract/effects.py`, where these effects are.
"""

import logging

from millrace.relay.contract.effects import (
    EngineRefused,
    SessionEnded,
    SessionMoved,
    SessionOpened,
    SessionsAdopted,
    StreamUnplayable,
)
from millrace.relay.contract.events import Outcome

log = logging.getLogger("millrace.worker")

Logged = SessionOpened | SessionEnded | SessionsAdopted | SessionMoved | StreamUnplayable | EngineRefused


def log_effect(effect: Logged) -> None:
    """Logs one effect, with ids as fields."""
    match effect:
        case SessionOpened(session, protocol, room, participant):
            log.info("session opened", extra=_client(session, protocol, room, participant))
        case SessionEnded(session, protocol, room, participant, cause):
            log.info("session closed", extra=_client(session, protocol, room, participant) | {"cause": cause})
        case SessionMoved(session, room, participant, slot, outcome):
            fields = {"session": _short(session), "room": room, "participant": participant, "slot": slot}
            level = logging.INFO if outcome is Outcome.MOVED else logging.DEBUG
            log.log(level, "session move ended", extra=fields | {"outcome": outcome})
        case StreamUnplayable(session, room, participant, kind, codec):
            fields = {"session": _short(session), "room": room, "participant": participant}
            log.info("viewer cannot play the codec in use", extra=fields | {"kind": kind, "codec": codec})
        case SessionsAdopted(adopted, lost):
            log.info("sessions of the slot's last worker adopted", extra={"adopted": adopted, "lost": lost})
        case EngineRefused(command, session, reason):
            log.error("the engine refused a command", extra={"command": command, "session": session, "reason": reason})


def _client(session: str, protocol: str, room: str, participant: str) -> dict[str, str]:
    return {"session": _short(session), "protocol": protocol, "room": room, "participant": participant}


def _short(session: str) -> str:
    # Where no tokens are asked for, the whole id is all that is needed to end a session.
    return session[:9]
