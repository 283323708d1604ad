"""One Control with deterministic chance, and small offers, for tests."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from millrace.relay.config.model import Config
from millrace.relay.contract.boot import CandidateAddress
from millrace.relay.contract.clock import Now
from millrace.relay.contract.commands import Command
from millrace.relay.contract.effects import Announce, Effect, Reply, Submit
from millrace.relay.contract.facts import Snapshot
from millrace.relay.contract.ids import Incarnation, RequestId, Slot
from millrace.relay.contract.inputs import FactHeard, Input, Offered, SnapshotHeard
from millrace.relay.contract.protocol import Protocol
from millrace.relay.control import Control, MediaEndpoint

NOW = 1_790_000_000.0
UPTIME = 5_000.0
"""Of the machine at NOW."""
FINGERPRINT = "sha-256 " + ":".join(["AB"] * 32)
Wanted = TypeVar("Wanted")


def offer(kinds: Sequence[str] = ("audio", "video"), direction: str = "sendonly", codecs: str = "vp8") -> str:
    """A small offer like a browser's."""
    lines = ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "t=0 0"]
    lines.append("a=group:BUNDLE " + " ".join(str(mid) for mid in range(len(kinds))))
    for mid, kind in enumerate(kinds):
        formats = {
            "audio": ["111 opus/48000/2"],
            "video": {"vp8": ["96 VP8/90000"], "vp9": ["98 VP9/90000"], "both": ["96 VP8/90000", "98 VP9/90000"]}[
                codecs
            ],
        }[kind]
        lines.append(f"m={kind} 9 UDP/TLS/RTP/SAVPF " + " ".join(one.split()[0] for one in formats))
        lines += ["c=IN IP4 0.0.0.0", f"a=mid:{mid}", f"a={direction}", "a=rtcp-mux", "a=setup:actpass"]
        lines += ["a=ice-ufrag:abcd", "a=ice-pwd:0123456789abcdefghijklmn"]
        lines.append("a=fingerprint:sha-256 " + ":".join(["11"] * 32))
        lines.append("a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid")
        lines += [f"a=rtpmap:{one}" for one in formats]
    return "\r\n".join(lines) + "\r\n"


def moment(now: float, set_by: float = 0.0) -> Now:
    """Somebody has set the Unix clock by so much since NOW."""
    return Now(now - NOW + UPTIME, now + set_by)


@dataclass
class Desk:
    """Asks one Control, and keeps what it wanted done."""

    control: Control
    now: float = NOW
    set_by: float = 0.0
    """By how much somebody has set the Unix clock."""
    requests: int = 0
    effects: list[Effect] = field(default_factory=list)

    def handle(self, said: Input) -> list[Effect]:
        self.effects = self.control.handle(said, moment(self.now, self.set_by))
        return self.effects

    def number(self) -> RequestId:
        self.requests += 1
        return RequestId(self.requests)

    def publish(self, room: str = "hall", sdp: str | None = None, token: str | None = None) -> Reply:
        self.handle(Offered(self.number(), Protocol.WHIP, room, token, sdp or offer(), None))
        return self.reply()

    def watch(
        self, room: str = "hall", participant: str | None = None, sdp: str | None = None, token: str | None = None
    ) -> Reply:
        sdp = sdp or offer(direction="recvonly", codecs="both")
        self.handle(Offered(self.number(), Protocol.WHEP, room, token, sdp, participant))
        return self.reply()

    def reply(self) -> Reply:
        (reply,) = self.all(Reply)
        return reply

    def all(self, kind: type[Wanted]) -> list[Wanted]:
        return [effect for effect in self.effects if isinstance(effect, kind)]

    def commands(self, kind: type[Wanted]) -> list[Wanted]:
        submitted: list[Command] = [command for effect in self.all(Submit) for command in effect.commands]
        return [command for command in submitted if isinstance(command, kind)]


def desk(config: Config | None = None, slot: int = 0, incarnation: int = 1, seed: int = 1) -> Desk:
    chance = random.Random(seed * 64 + slot)
    endpoint = MediaEndpoint(FINGERPRINT, [CandidateAddress("127.0.0.1", 7882, "127.0.0.1")])
    return Desk(Control(config or Config(), Slot(slot), Incarnation(incarnation), endpoint, chance.randbytes))


def told(source: Desk, *others: Desk) -> None:
    """Gives what `source` announced last to the others, who know of all before, over a bus that loses nothing."""
    for announce in source.all(Announce):
        envelope = announce.envelope
        for other in others:
            if not other.control.directory.is_alive(envelope.slot):
                before = Snapshot(envelope.slot, envelope.incarnation, envelope.sequence - 1, ())
                other.handle(SnapshotHeard(before))
            other.handle(FactHeard(envelope))


def facts(worker: Desk) -> list[object]:
    return [announce.envelope.fact for announce in worker.all(Announce)]


def body(reply: Reply) -> Any:
    return json.loads(reply.body)


def header(reply: Reply, name: str) -> str:
    (value,) = [value for known, value in reply.headers if known == name]
    return value


def session_of(reply: Reply) -> str:
    return header(reply, "Location").rpartition("/")[2]
