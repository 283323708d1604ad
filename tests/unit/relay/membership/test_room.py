"""Whom a viewer watches, from the facts alone."""

import itertools

import pytest

from millrace.relay.contract.commands import CodecName, MediaKind
from millrace.relay.contract.facts import ParticipantHere, PublicationHere, Sending
from millrace.relay.contract.ids import ParticipantId, PublicationId, RoomName, SessionId, Slot
from millrace.relay.membership.directory import Room
from millrace.relay.membership.room import publications_for

HALL = RoomName("hall")
SENDS, RETURNS, SILENT = Sending.SENDS, Sending.RETURNS, Sending.SILENT


def room(*publishers: tuple[str, Sending]) -> Room:
    """Of publishers with one track each, in the order in which they came."""
    made = Room()
    for number, (who, sending) in enumerate(publishers):
        session, participant = SessionId(f"00.{number}"), ParticipantId(who)
        made.publishers[session] = (Slot(0), ParticipantHere(HALL, participant, session, True, 100.0 + number, sending))
        made.publications[PublicationId(number)] = PublicationHere(
            room=HALL,
            session=session,
            participant=participant,
            publication=PublicationId(number),
            kind=MediaKind.AUDIO,
            position=0,
            codec=CodecName.OPUS,
            clock_rate=48_000,
            format_parameters="",
            logs=(number,),
            extensions=(),
            published_at=1.0,
        )
    return made


def watched(of: Room, watches: str | None = None) -> int | None:
    found = publications_for(of, None if watches is None else ParticipantId(watches))
    return found[0].publication if found else None


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ((SENDS, SENDS, SENDS), 0),
        ((SILENT, SENDS, SENDS), 1),
        ((SILENT, SILENT, SENDS), 2),
        ((SILENT, SILENT, SILENT), 0),
        ((RETURNS, SENDS, SENDS), 1),
        ((RETURNS, SILENT, SILENT), 0),
        ((SILENT, RETURNS, RETURNS), 1),
        ((RETURNS, RETURNS, SENDS), 2),
    ],
)
def test_who_sends_comes_before_who_returns_and_that_one_before_the_silent_and_then_the_first_to_come(
    states: tuple[Sending, ...], expected: int
) -> None:
    assert watched(room(*zip("abc", states, strict=True))) == expected


def test_a_participant_that_is_named_is_watched_silent_or_not_and_by_its_newest_session() -> None:
    for one, other in itertools.product(Sending, repeat=2):
        assert watched(room(("ann", one), ("bob", other)), watches="ann") == 0
        assert watched(room(("ann", one), ("bob", SENDS), ("ann", other)), watches="ann") == 2


def test_a_session_that_replaces_another_of_its_identity_is_judged_by_itself() -> None:
    assert watched(room(("ann", SENDS), ("bob", SENDS), ("ann", SILENT))) == 1
    assert watched(room(("ann", SILENT), ("ann", SENDS), ("bob", SENDS))) == 1
