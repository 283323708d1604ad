"""Whom a viewer watches, and what its streams are fed from. Owns the choice, as a function of the directory alone, so
that it does not matter in which order the facts came; must never know sessions. Read `relay/session/feeding.py` next,
which feeds their streams.
"""

import math

from millrace.relay.contract.facts import ParticipantHere, PublicationHere, Sending
from millrace.relay.contract.ids import ParticipantId, SessionId
from millrace.relay.membership.directory import Room


def is_newer(one: ParticipantHere, other: ParticipantHere) -> bool:
    """True when `one` stands and `other` goes, if one participant publishes twice. Every worker decides alike."""
    return (one.joined_at, one.session) > (other.joined_at, other.session)


def joins_at(room: Room | None, now: float) -> float:
    """When a publisher that opens a session `now` joins: later than all publishers of the room, even if the Unix clock
    was set back since.
    """
    joined = [fact.joined_at for _, fact in room.publishers.values()] if room is not None else []
    return max(now, math.nextafter(max(joined, default=0.0), math.inf))


def publications_for(room: Room | None, watches: ParticipantId | None) -> tuple[PublicationHere, ...]:
    """The publications of the participant `watches`, in m-line order; when None, those of the room's first publisher
    among those that send, else among those that send again, else among the silent ones.
    """
    if room is None:
        return ()
    newest: dict[ParticipantId, ParticipantHere] = {}
    publishing = {publication.session for publication in room.publications.values()}
    for _, fact in room.publishers.values():
        if fact.session not in publishing:
            continue
        known = newest.get(fact.participant)
        if known is None or is_newer(fact, known):
            newest[fact.participant] = fact
    chosen = newest.get(watches) if watches is not None else min(newest.values(), key=_order, default=None)
    if chosen is None:
        return ()
    publications = [publication for publication in room.publications.values() if publication.session == chosen.session]
    return tuple(sorted(publications, key=lambda publication: (publication.position, publication.publication)))


def _order(fact: ParticipantHere) -> tuple[int, float, SessionId]:
    return _ORDER.index(fact.sending), fact.joined_at, fact.session


_ORDER = (Sending.SENDS, Sending.RETURNS, Sending.SILENT)
