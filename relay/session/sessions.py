"""The sessions that this worker has. Owns the tables; must never know HTTP or what an offer said. Read
`relay/session/opening.py` next, which makes sessions, and `relay/membership/tombstones.py` for those that are over.
"""

from dataclasses import dataclass, field

from millrace.relay.contract.clock import Now
from millrace.relay.contract.commands import Codec, CodecName
from millrace.relay.contract.events import Cause
from millrace.relay.contract.facts import PublicationHere, Sending
from millrace.relay.contract.ids import (
    ParticipantId,
    PublicationId,
    RoomName,
    SessionId,
    Slot,
    SubscriptionId,
    TransportId,
)
from millrace.relay.contract.protocol import Protocol
from millrace.relay.contract.tombstone import Tombstone
from millrace.relay.membership.tombstones import TOMBSTONE_SECONDS
from millrace.relay.negotiation.answering import Receiver

REPLACED = "replaced"
"""The cause of the older session's end when a participant publishes again."""


@dataclass(slots=True)
class Receiving:
    """One m-line of a viewer: an outgoing stream, and what feeds it now."""

    subscription: SubscriptionId
    receiver: Receiver
    publication: PublicationId | None = None
    codec: Codec | None = None
    """The codec in use as the viewer numbers it; None as long as that is not known."""
    lacks: CodecName | None = None
    """The codec that is sent and that the viewer cannot play, for which nothing feeds it; None when it is not so."""


@dataclass(slots=True)
class Session:
    """What a WHIP or WHEP URL names. A publisher has `publications`, a viewer `receiving`."""

    id: SessionId
    protocol: Protocol
    room: RoomName
    participant: ParticipantId
    transport: TransportId
    opened_at: float
    """Unix time in seconds; the facts carry the same number."""
    etag: str
    remote_ufrag: str
    remote_pwd: str
    mids: tuple[str, ...]
    """Of the m-lines that the answer took, for the answer to an ICE restart."""
    restarted_with: tuple[str, str] | None = None
    """Our ICE credentials of the last restart, whose answer may have been lost."""
    watches: ParticipantId | None = None
    """The participant that a viewer watches; None for the room's first publisher."""
    needs_token: bool = True
    """True when a token of our keys opened the session; then its later requests need one, too."""
    publications: dict[PublicationId, PublicationHere] = field(default_factory=dict)
    paused: set[PublicationId] = field(default_factory=set)
    """Publications that said BYE and are withdrawn until they send again."""
    receiving: list[Receiving] = field(default_factory=list)
    ssrcs: tuple[int, ...] = ()
    """SSRCs of the streams that we send, released at the end."""
    connected: bool = False
    stalled: Cause | None = None
    adopted: bool = False
    """True when our predecessor or another slot opened the session, and this worker adopted it."""
    leaving: Slot | None = None
    """The slot to which the session is on its way. Until the outcome is known, no command about it can be carried out.
    """
    ends_as: str | None = None
    """The cause with which the session is to end as soon as the outcome of its move is known."""
    arrived_at: float | None = None
    """When the session came from another slot: CLOCK_MONOTONIC, seconds."""
    stays_until: float = 0.0
    """A session that could not be moved is not tried again before this time: CLOCK_MONOTONIC, seconds."""
    sending: Sending = Sending.SENDS
    """Whether media comes from a publisher, as the facts say it. `relay/session/sending.py` changes it."""
    relied_on_at: float | None = None
    """When a publisher that returned is, or was, relied on again; None before its first return: CLOCK_MONOTONIC,
    seconds.
    """
    return_seconds: float = 0.0
    """How long a publisher that was silent has to send before it is relied on again."""
    source: str = ""
    """Where its POST came from, as `shares.source_of` has it; empty for an adopted session."""
    packed_fixed: bytes = b""
    """The unchanging part of the record, packed; empty before the first time."""


class Sessions:
    """Living sessions by every id that an input may name them by."""

    def __init__(self) -> None:
        self._by_id: dict[SessionId, Session] = {}
        self._by_thing: dict[int, Session] = {}
        """By transport, publication and subscription: all are random numbers of 63 bits."""
        self._by_room: dict[RoomName, dict[SessionId, Session]] = {}
        self.publications = 0
        self.subscriptions = 0

    def __len__(self) -> int:
        return len(self._by_id)

    def add(self, session: Session) -> None:
        """Adds a session, with its publications and subscriptions."""
        self._by_id[session.id] = session
        self._by_room.setdefault(session.room, {})[session.id] = session
        for thing in _things(session):
            self._by_thing[thing] = session
        self.publications += len(session.publications)
        self.subscriptions += len(session.receiving)

    def get(self, session: SessionId) -> Session | None:
        """The session of this id; None when it is not on this worker."""
        return self._by_id.get(session)

    def of_thing(self, thing: int) -> Session | None:
        """The session to which a transport, a publication or a subscription of this id belongs; None when there is
        none.
        """
        return self._by_thing.get(thing)

    def in_room(self, room: RoomName) -> list[Session]:
        """A list of a room's sessions; a copy, so that sessions may be removed meanwhile."""
        return list(self._by_room.get(room, {}).values())

    def all(self) -> list[Session]:
        """A list of all sessions; a copy, so that sessions may be removed meanwhile."""
        return list(self._by_id.values())

    def release(self, session: Session) -> None:
        """Removes a session that is no longer on this worker."""
        del self._by_id[session.id]
        room = self._by_room[session.room]
        del room[session.id]
        if not room:
            del self._by_room[session.room]
        for thing in _things(session):
            del self._by_thing[thing]
        self.publications -= len(session.publications)
        self.subscriptions -= len(session.receiving)

    def remove(self, session: Session, cause: str, now: Now) -> Tombstone:
        """Removes a session that is over; returns its tombstone."""
        self.release(session)
        return Tombstone(
            session=session.id,
            protocol=session.protocol,
            room=session.room,
            participant=session.participant,
            opened_at=session.opened_at,
            ended_at=now.unix,
            cause=cause,
            until=now.steady + TOMBSTONE_SECONDS,
        )


def _things(session: Session) -> list[int]:
    return [
        session.transport,
        *session.publications,
        *(receiving.subscription for receiving in session.receiving),
    ]
