"""Brings the streams of a viewer in line with the publications that it watches. Owns which stream is fed from which
publication; must never know how the publisher was chosen. Read `relay/membership/room.py` next, which chooses.

A stream is bound to a publication when that was negotiated, and attached when the codec in use is known:

    the publication                          the stream
    is not there                             detached
    is there, its codec is not known yet     stays as it is
    sends what the viewer can play           attached; the engine itself follows a change to another such codec
    sends what the viewer cannot play        detached, and lacks that codec
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from millrace.relay.contract.commands import Attach, CodecName, Command, Detach
from millrace.relay.contract.facts import PublicationHere
from millrace.relay.negotiation.answering import codec_for, formats_for
from millrace.relay.session.sessions import Receiving, Session


@dataclass(slots=True)
class Fed:
    """What `feed` has found."""

    commands: list[Command] = field(default_factory=list)
    has_changed: bool = False
    """True when the viewer's record is out of date."""
    lacking: list[Receiving] = field(default_factory=list)
    """Streams that have just come to lack a codec."""


def feed(viewer: Session, publications: Sequence[PublicationHere]) -> Fed:
    """Changes `viewer`: audio 0 is fed from audio 0, video 1 from video 1."""
    fed = Fed()
    by_place = {(publication.kind, publication.position): publication for publication in publications}
    for receiving in viewer.receiving:
        publication = by_place.get((receiving.receiver.kind, receiving.receiver.position))
        if publication is None:
            receiving.lacks = None
            _detach(receiving, fed)
        else:
            _follow(receiving, publication, fed)
    return fed


def _follow(receiving: Receiving, publication: PublicationHere, fed: Fed) -> None:
    receiver = receiving.receiver
    is_fed = receiving.publication == publication.publication
    if not publication.is_codec_known:
        if not is_fed:
            _detach(receiving, fed)
        can_play_some = is_fed or formats_for(receiver, publication) != ()
        _say_lacking(receiving, None if can_play_some else publication.codec, fed)
        return
    codec = codec_for(receiver, publication)
    _say_lacking(receiving, publication.codec if codec is None else None, fed)
    if codec is None:
        _detach(receiving, fed)
        return
    if not is_fed:
        extensions, formats = publication.extensions, formats_for(receiver, publication)
        fed.commands.append(
            Attach(receiving.subscription, publication.publication, publication.logs, codec, extensions, formats)
        )
    # The engine saves the codec in use with its part of the record.
    fed.has_changed |= not is_fed or receiving.codec not in (None, codec)
    receiving.publication, receiving.codec = publication.publication, codec


def _say_lacking(receiving: Receiving, lacks: CodecName | None, fed: Fed) -> None:
    if lacks is not None and receiving.lacks is not lacks:
        fed.lacking.append(receiving)
    receiving.lacks = lacks


def _detach(receiving: Receiving, fed: Fed) -> None:
    receiving.codec = None
    if receiving.publication is not None:
        receiving.publication = None
        fed.commands.append(Detach(receiving.subscription))
        fed.has_changed = True
