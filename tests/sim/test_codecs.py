"""Publishers with a choice of codecs in a storm: whatever is lost, doubled or reordered, and whoever dies or moves, in
the end each viewer is fed what it can play of what is sent, and lacks the rest. Read `test_membership.py` next.
"""

import pytest

from millrace.relay.contract.commands import MediaKind
from millrace.relay.contract.events import CodecInUse
from millrace.relay.contract.facts import PublicationHere
from millrace.relay.contract.ids import Slot
from millrace.relay.contract.inputs import EngineSaid
from millrace.relay.contract.protocol import Protocol
from tests.sim.box import Box, Life, Weather
from tests.sim.test_membership import STORM, expected_feed, standing

PEOPLE = ("ann", "bob", "zoe")


def change_codec(box: Box, life: Life) -> None:
    """The engine of this worker says that some publication sends another codec."""
    chosen = [
        publication.publication
        for session in life.control.sessions.all()
        for publication in session.publications.values()
        if publication.formats
    ]
    if chosen:
        box.give(life, EngineSaid(CodecInUse(box.chance.choice(sorted(chosen)), box.chance.choice([96, 98]))))


def act(box: Box, sessions: list[str]) -> None:
    chance = box.chance
    if not box.lives:
        box.spawn(Slot(0))
    life = chance.choice([box.lives[slot] for slot in sorted(box.lives)])
    what = ["publish", "watch", "change", "delete", "kill", "spawn", "move"]
    match chance.choices(what, [8, 10, 25, 6, 2, 6, 10])[0]:
        case "publish":
            sessions.append(box.offer(life, Protocol.WHIP, "hall", chance.choice(PEOPLE), codecs="both"))
        case "watch":
            codecs = chance.choice(["vp8", "vp9", "both"])
            sessions.append(box.offer(life, Protocol.WHEP, "hall", "viewer", chance.choice(PEOPLE), codecs=codecs))
        case "change":
            change_codec(box, life)
        case "delete":
            if sessions:
                box.delete(life, sessions.pop(chance.randrange(len(sessions))))
        case "kill":
            box.kill(life.slot)
        case "spawn":
            for slot in sorted(set(box.incarnations) - set(box.lives)):
                box.spawn(slot)
        case "move":
            if sessions:
                box.move(life, chance.choice(sessions), chance.choice(sorted(box.incarnations)))


def check_viewers(box: Box) -> int:
    """How many video streams are fed, and how many lack a codec."""
    facts = standing(box)
    publications = {fact.publication: fact for fact in facts if isinstance(fact, PublicationHere)}
    seen = [0, 0]
    for life in box.lives.values():
        assert life.control.directory.view() == facts
        for session in life.control.sessions.all():
            shown = {publications[number].kind: publications[number] for number in expected_feed(facts, session)}
            for stream in session.receiving:
                publication = shown.get(stream.receiver.kind)
                attached = life.engine.attached.get(stream.subscription)
                has = {known.name for known, _ in stream.receiver.codecs}
                is_known = publication is not None and publication.is_codec_known
                if publication is not None and is_known and publication.codec in has:
                    assert attached is not None
                    assert attached.publication == publication.publication
                    assert stream.codec is not None
                    assert stream.codec.name is publication.codec
                    seen[0] += stream.receiver.kind is MediaKind.VIDEO
                else:
                    assert attached is None
                    lacks = publication.codec if publication is not None and is_known else None
                    assert stream.lacks is lacks
                    seen[1] += lacks is not None
    return min(seen)


@pytest.mark.parametrize("seed", range(15))
def test_each_viewer_gets_what_it_can_play_after_a_storm(seed: int) -> None:
    box = Box(seed, slots=3, weather=STORM)
    sessions: list[str] = []
    for _ in range(120):
        act(box, sessions)
        box.run(box.chance.expovariate(5))
    for slot in sorted(set(box.incarnations) - set(box.lives)):
        box.spawn(slot)
    last = box.offer(box.lives[Slot(0)], Protocol.WHIP, "hall", "last", codecs="both")
    for codecs in ("vp8", "vp9", "both"):
        box.offer(box.lives[Slot(1)], Protocol.WHEP, "hall", "viewer", "last", codecs=codecs)
    (session,) = (one for one in box.lives[Slot(0)].control.sessions.all() if one.id == last)
    (video,) = (one for one in session.publications.values() if one.formats)
    box.give(box.lives[Slot(0)], EngineSaid(CodecInUse(video.publication, 98)))
    box.run(0.3)
    box.weather = Weather()
    box.run(4.0)
    assert check_viewers(box) >= 1
