"""Workers of this release and of a later one in one box: those of this one skip what they do not know, and agree."""

from dataclasses import replace
from typing import Any

import msgpack
import pytest

from millrace.relay.contract import codec
from millrace.relay.contract.facts import Envelope, Snapshot
from millrace.relay.contract.ids import Slot
from millrace.relay.contract.protocol import Protocol
from tests.sim.box import Box, Language, Life, Weather
from tests.sim.test_membership import STORM, act, check, standing

MOOD: dict[str, Any] = {"Mood": {"room": "hall", "says": ["later", {"deep": 7}]}}


class Later(Language):
    """Says a fact of a kind of its own before each that all know, and more of everything."""

    def __init__(self) -> None:
        self.told = 0

    def facts(self, envelope: Envelope) -> list[bytes]:
        self.told += 2
        mood = replace(envelope, sequence=self.told - 1, fact=None)
        return [_packed(mood, MOOD), _packed(replace(envelope, sequence=self.told))]

    def snapshot(self, snapshot: Snapshot) -> bytes:
        version, plain = msgpack.unpackb(codec.pack_answer(replace(snapshot, sequence=self.told)))
        facts = plain["Snapshot"]["facts"]
        plain["Snapshot"] = {"moods": 3, **plain["Snapshot"], "facts": [MOOD, *map(_grown, facts), MOOD]}
        return msgpack.packb([version, plain])


def _packed(envelope: Envelope, fact: dict[str, Any] | None = None) -> bytes:
    version, plain = msgpack.unpackb(codec.pack_envelope(envelope))
    plain["Envelope"] = {"said_at": 1.5, **plain["Envelope"], "fact": fact or _grown(plain["Envelope"]["fact"])}
    return msgpack.packb([version, plain])


def _grown(fact: dict[str, Any]) -> dict[str, Any]:
    return {name: {"later": [1, {}], **inner} for name, inner in fact.items()}


def counted(life: Life, name: str) -> int:
    return life.control.counters.values[f"millrace_{name}"]


@pytest.mark.parametrize("seed", range(10))
def test_a_box_with_workers_of_a_later_release_converges_without_asking_for_snapshots_all_the_time(seed: int) -> None:
    box = Box(seed, slots=4, weather=STORM)
    # Each has a successor of that release, as in an upgrade.
    for slot in (Slot(1), Slot(2)):
        box.languages[slot] = Later
        box.kill(slot)
        box.spawn(slot, adopts=True)
    sessions: list[str] = []
    for _ in range(60):
        act(box, sessions)
        box.run(box.chance.expovariate(5))
    for slot in sorted(set(box.incarnations) - set(box.lives)):
        box.spawn(slot)
    for life in box.lives.values():
        box.offer(life, Protocol.WHIP, "hall", f"last-{life.slot}")
        box.offer(life, Protocol.WHEP, "hall", "last", watches="last-1")
    box.run(0.3)
    # In order, as ZeroMQ gives messages: one that is overtaken shows as a gap, whoever says it.
    box.weather = Weather(delay=0)
    box.run(4.0)
    check(box)
    assert len(standing(box)) >= 8
    asked = [counted(life, "snapshots_asked_total") for life in box.lives.values()]
    skipped = [counted(life, 'messages_unknown_total{contract="facts"}') for life in box.lives.values()]
    for number in range(60):
        box.offer(box.lives[Slot(number % 4)], Protocol.WHEP, "hall", f"more-{number}")
        box.run(0.5)
    check(box)
    assert [counted(life, "snapshots_asked_total") for life in box.lives.values()] == asked
    for life, before in zip(box.lives.values(), skipped, strict=True):
        assert counted(life, 'messages_unknown_total{contract="facts"}') > before + 30, "a beat a second, of each"
    assert any(counted(life, 'messages_unknown_total{contract="answers"}') for life in box.lives.values())
