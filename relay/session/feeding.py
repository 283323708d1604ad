"""Brings the streams of a viewer in line with the publications that it watches. Owns which stream is fed from which
publication; must never know how the publisher was chosen. Read `relay/membership/room.py` next, which chooses.
"""

from collections.abc import Sequence

from millrace.relay.contract.commands import Attach, Command, Detach
from millrace.relay.contract.facts import PublicationHere
from millrace.relay.negotiation.answering import codec_for
from millrace.relay.session.sessions import Session


def feed(viewer: Session, publications: Sequence[PublicationHere]) -> list[Command]:
    """Changes `viewer` and returns the commands that do it: audio 0 is fed from audio 0, video 1 from video 1."""
    commands: list[Command] = []
    by_place = {(publication.kind, publication.position): publication for publication in publications}
    for receiving in viewer.receiving:
        publication = by_place.get((receiving.receiver.kind, receiving.receiver.position))
        codec = None if publication is None else codec_for(receiving.receiver, publication)
        if publication is None or codec is None:
            if receiving.publication is not None:
                receiving.publication = None
                commands.append(Detach(receiving.subscription))
        elif receiving.publication != publication.publication:
            receiving.publication = publication.publication
            commands.append(
                Attach(receiving.subscription, publication.publication, publication.logs, codec, publication.extensions)
            )
    return commands
