"""What the administration interface says of rooms and sessions, as plain values for JSON. Owns those words; must never
change anything. Read `relay/contract/tombstone.py` next, for sessions that are over.
"""

from dataclasses import asdict
from typing import Any

from millrace.relay.contract.events import TransportReport
from millrace.relay.contract.facts import PublicationHere, Sending
from millrace.relay.contract.ids import RoomName
from millrace.relay.membership.directory import Room
from millrace.relay.session.sessions import Receiving, Session

CODEC_UNPLAYABLE = "codec_unplayable"
"""The cause of a viewer's session that cannot play what is sent. It goes on, as the codec may change."""


def room_view(name: RoomName, room: Room, with_sessions: bool) -> dict[str, Any]:
    """One room, for a list of rooms. The public page gets no session ids: whoever knows one may end that session."""
    publishers = []
    for slot, fact in sorted(room.publishers.values(), key=lambda entry: (entry[1].joined_at, entry[1].session)):
        publications = sorted(
            (p for p in room.publications.values() if p.session == fact.session),
            key=lambda publication: (publication.kind, publication.position),
        )
        view: dict[str, Any] = {
            "participant": fact.participant,
            "silent": fact.sending is Sending.SILENT,
            "tracks": [_track_view(publication) for publication in publications],
        }
        if with_sessions:
            view |= {"session": fact.session, "slot": slot}
        publishers.append(view)
    return {
        "name": name,
        "participants": len({fact.participant for _, fact in (*room.publishers.values(), *room.viewers.values())}),
        "publishers": publishers,
        "viewers": len(room.viewers),
    }


def sessions_view(room: Room) -> list[dict[str, Any]]:
    """The sessions of a room with their slots, in the order in which they joined."""
    everybody = [*room.publishers.values(), *room.viewers.values()]
    return [
        {
            "session": fact.session,
            "participant": fact.participant,
            "publishes": fact.publishes,
            "silent": fact.sending is Sending.SILENT,
            "slot": slot,
        }
        for slot, fact in sorted(everybody, key=lambda entry: (entry[1].joined_at, entry[1].session))
    ]


def session_view(session: Session, report: TransportReport | None) -> dict[str, Any]:
    """One session of this worker, with the engine's report on its transport if there is one."""
    view: dict[str, Any] = {
        "session": session.id,
        "state": "connected" if session.connected else "connecting",
        "protocol": session.protocol.value,
        "room": session.room,
        "participant": session.participant,
        "opened_at": session.opened_at,
        "cause": _cause(session),
        "silent": session.sending is Sending.SILENT,
        "streams": [_stream_view(receiving) for receiving in session.receiving],
        "transport": None,
    }
    if report is not None:
        transport = asdict(report)
        # The engine's ids say nothing to a reader. Those that tell streams apart become text, as JavaScript rounds
        # numbers past 2^53.
        for name in ("transport", "request"):
            del transport[name]
        transport["drops"] = dict(report.drops)
        for stream in (*transport["publications"], *transport["subscriptions"]):
            for name in ("publication", "subscription"):
                if stream.get(name) is not None:
                    stream[name] = f"{stream[name]:x}"
        view["transport"] = transport
    return view


def _track_view(publication: PublicationHere) -> dict[str, Any]:
    """A track with the codec in use; where there is a choice, with all codecs that it may have."""
    in_use = publication.codec.value if publication.is_codec_known else None
    view: dict[str, Any] = {"kind": publication.kind.value, "codec": in_use}
    if publication.formats:
        view["may_send"] = list(dict.fromkeys(known.codec.value for known in publication.formats))
    return view


def _stream_view(receiving: Receiving) -> dict[str, Any]:
    """What one m-line of a viewer gets, or why it gets nothing."""
    return {
        "kind": receiving.receiver.kind.value,
        "position": receiving.receiver.position,
        "publication": None if receiving.publication is None else f"{receiving.publication:x}",
        "codec": None if receiving.codec is None else receiving.codec.name.value,
        "lacks": None if receiving.lacks is None else receiving.lacks.value,
    }


def _cause(session: Session) -> str | None:
    if session.stalled is not None:
        return session.stalled.value
    return CODEC_UNPLAYABLE if any(receiving.lacks is not None for receiving in session.receiving) else None
