"""What is remembered of a session that is over, and how the administration interface shows it. Owns that shape; must
never know how long tombstones are kept. Read `relay/membership/tombstones.py` next, which keeps them.
"""

from dataclasses import dataclass
from typing import Any

from millrace.relay.contract.ids import ParticipantId, RoomName, SessionId
from millrace.relay.contract.protocol import Protocol


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What is remembered of one session."""

    session: SessionId
    protocol: Protocol
    room: RoomName
    participant: ParticipantId
    opened_at: float
    ended_at: float
    """Unix time in seconds, as is `opened_at`."""
    cause: str
    """An `events.Cause` or one of control's own, such as `replaced` or `room_deleted`."""
    until: float
    """When it is forgotten: CLOCK_MONOTONIC, seconds."""


def tombstone_view(tombstone: Tombstone) -> dict[str, Any]:
    """The answer to GET /sessions/{id} for a session that is over."""
    return {
        "session": tombstone.session,
        "state": "ended",
        "protocol": tombstone.protocol.value,
        "room": tombstone.room,
        "participant": tombstone.participant,
        "opened_at": tombstone.opened_at,
        "ended_at": tombstone.ended_at,
        "cause": tombstone.cause,
    }
