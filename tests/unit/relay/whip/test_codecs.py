"""Publishers with a choice of codecs: what is announced when, and what their viewers get."""

import json

from millrace.relay.contract.commands import Attach, Detach, Format, Publish, SaveRecord
from millrace.relay.contract.effects import Announce, StreamUnplayable
from millrace.relay.contract.events import (
    AdoptionDone,
    CodecInUse,
    PublicationEnded,
    PublicationStarted,
    TransportAdopted,
    TransportReport,
)
from millrace.relay.contract.facts import PublicationHere
from millrace.relay.contract.ids import PublicationId, Slot
from millrace.relay.contract.inputs import EngineSaid, RoomsAsked, SessionAsked, SlotChanged, Ticked
from millrace.relay.session.record import unpack_session
from tests.unit.control_kit import Desk, desk, offer, session_of, told

VP8, VP9 = 96, 98
"""As the offers of `control_kit` number them."""


def publish(worker: Desk) -> PublicationId:
    """A publisher of VP8 and VP9, without sound."""
    worker.publish(sdp=offer(["video"], codecs="both"))
    (command,) = worker.commands(Publish)
    return command.publication


def watch(worker: Desk, codecs: str) -> None:
    assert worker.watch(sdp=offer(["video"], direction="recvonly", codecs=codecs)).status == 201


def sends(worker: Desk, publication: PublicationId, payload_type: int) -> None:
    worker.handle(EngineSaid(CodecInUse(publication, payload_type)))


def announced(worker: Desk) -> list[tuple[str, int | None]]:
    facts = [effect.envelope.fact for effect in worker.all(Announce)]
    return [(fact.codec.value, fact.in_use) for fact in facts if isinstance(fact, PublicationHere)]


def test_a_publication_is_announced_when_negotiated_and_again_with_the_codec_in_use() -> None:
    worker = desk()
    publication = publish(worker)
    (command,) = worker.commands(Publish)
    assert [(known.codec.name.value, known.codec.payload_type) for known in command.codecs] == [
        ("vp8", 96),
        ("vp9", 98),
    ]
    assert announced(worker) == [("vp8", None)]
    sends(worker, publication, VP9)
    assert announced(worker) == [("vp9", VP9)]
    sends(worker, publication, VP9)
    assert announced(worker) == []
    sends(worker, publication, 100)
    assert announced(worker) == [], "no codec of the publication"


def test_who_has_no_choice_is_announced_once_with_its_codec() -> None:
    worker = desk()
    worker.publish(sdp=offer(["video"], codecs="vp9"))
    (command,) = worker.commands(Publish)
    assert command.codecs == ()
    assert announced(worker) == [("vp9", None)]
    watch(worker, "vp9")
    (attach,) = worker.commands(Attach)
    assert attach.formats == ()


def test_a_viewer_is_bound_at_once_and_attached_when_the_codec_is_known() -> None:
    one, two = desk(slot=0), desk(slot=1)
    publication = publish(one)
    told(one, two)
    watch(two, "both")
    assert not two.commands(Attach)
    sends(one, publication, VP9)
    told(one, two)
    (attach,) = two.commands(Attach)
    assert (attach.publication, attach.codec.payload_type) == (publication, 98)
    assert [known.payload_type for known in attach.formats] == [VP8, VP9]
    assert two.commands(SaveRecord)


def test_a_viewer_that_came_first_is_attached_when_the_codec_is_known() -> None:
    worker = desk()
    watch(worker, "vp9")
    publication = publish(worker)
    assert not worker.commands(Attach)
    sends(worker, publication, VP9)
    (attach,) = worker.commands(Attach)
    assert attach.formats == (Format(VP9, attach.codec),)


def test_a_change_between_codecs_that_a_viewer_has_is_the_engines_and_is_saved() -> None:
    worker = desk()
    publication = publish(worker)
    sends(worker, publication, VP8)
    watch(worker, "both")
    sends(worker, publication, VP9)
    assert not worker.commands(Attach) + worker.commands(Detach)
    saved = {unpack_session(command.record).protocol.value for command in worker.commands(SaveRecord)}
    assert saved == {"whip", "whep"}


def test_a_viewer_that_lacks_the_codec_in_use_is_told_and_attached_as_soon_as_it_suits() -> None:
    worker = desk()
    publication = publish(worker)
    sends(worker, publication, VP9)
    watch(worker, "vp8")
    assert not worker.commands(Attach)
    (lacking,) = worker.all(StreamUnplayable)
    assert (lacking.kind.value, lacking.codec.value) == ("video", "vp9")
    assert worker.control.counters.values['millrace_streams_unplayable_total{codec="vp9"}'] == 1
    worker.handle(Ticked())
    assert not worker.all(StreamUnplayable), "once"
    sends(worker, publication, VP8)
    (attach,) = worker.commands(Attach)
    assert attach.codec.payload_type == VP8
    sends(worker, publication, VP9)
    assert len(worker.commands(Detach)) == len(worker.all(StreamUnplayable)) == 1


def test_a_viewer_that_can_play_nothing_of_a_later_publisher_is_told_before_the_first_packet() -> None:
    worker = desk()
    h264 = offer(["video"], direction="recvonly").replace("96 VP8/90000", "96 H264/90000").replace(" VP8/", " H264/")
    assert worker.watch(sdp=h264).status == 201
    publication = publish(worker)
    assert [lacking.codec.value for lacking in worker.all(StreamUnplayable)] == ["vp8"]
    sends(worker, publication, VP9)
    assert [lacking.codec.value for lacking in worker.all(StreamUnplayable)] == ["vp9"]


def test_what_a_viewer_lacks_is_shown_with_its_session_and_the_codec_in_use_with_the_room() -> None:
    worker = desk()
    publication = publish(worker)

    def tracks() -> object:
        worker.handle(RoomsAsked(worker.number()))
        return json.loads(worker.reply().body)[0]["publishers"][0]["tracks"]

    assert tracks() == [{"kind": "video", "codec": None, "may_send": ["vp8", "vp9"]}]
    sends(worker, publication, VP9)
    assert tracks() == [{"kind": "video", "codec": "vp9", "may_send": ["vp8", "vp9"]}]
    viewer = session_of(worker.watch(sdp=offer(["video"], direction="recvonly", codecs="vp8")))

    def shown() -> dict[str, object]:
        request = worker.number()
        worker.handle(SessionAsked(request, viewer))
        transport = worker.control.sessions.get(viewer).transport
        report = TransportReport(transport, request, "connected", None, None, 0, 0, 0, 0, (), None, (), ())
        worker.handle(EngineSaid(report))
        return json.loads(worker.reply().body)

    lacking = {"kind": "video", "position": 0, "publication": None, "codec": None, "lacks": "vp9"}
    assert (shown()["cause"], shown()["streams"]) == ("codec_unplayable", [lacking])
    sends(worker, publication, VP8)
    fed = {"kind": "video", "position": 0, "publication": f"{publication:x}", "codec": "vp8", "lacks": None}
    assert (shown()["cause"], shown()["streams"]) == (None, [fed])


def test_the_codec_in_use_survives_the_worker_and_a_pause() -> None:
    worker = desk()
    publication = publish(worker)
    sends(worker, publication, VP9)
    (saved,) = worker.commands(SaveRecord)
    transport = unpack_session(saved.record).transport
    successor = desk(incarnation=2)
    successor.handle(EngineSaid(TransportAdopted(transport, saved.record, (publication,), (), True)))
    assert announced(successor) == [("vp9", VP9)]
    successor.handle(EngineSaid(AdoptionDone(1, 0)))
    sends(successor, publication, VP9)
    assert announced(successor) == []
    successor.handle(EngineSaid(PublicationEnded(publication)))
    sends(successor, publication, VP8)
    assert announced(successor) == [], "a publication that has ended is not announced"
    successor.handle(EngineSaid(PublicationStarted(publication)))
    assert announced(successor) == [("vp8", VP8)]


def test_a_viewer_is_not_detached_while_a_successor_of_the_publishers_worker_does_not_know_the_codec() -> None:
    one, two = desk(slot=0), desk(slot=1)
    publication = publish(one)
    (before,) = one.commands(SaveRecord)
    told(one, two)
    watch(two, "both")
    sends(one, publication, VP9)
    told(one, two)
    assert two.commands(Attach)
    # The worker died before the record with the codec was saved.
    successor = desk(slot=0, incarnation=2)
    transport = unpack_session(before.record).transport
    successor.handle(EngineSaid(TransportAdopted(transport, before.record, (publication,), (), True)))
    successor.handle(EngineSaid(AdoptionDone(1, 0)))
    two.handle(SlotChanged(Slot(0), successor.control.snapshot().incarnation))
    told(successor, two)
    assert not two.commands(Detach)
    sends(successor, publication, VP8)
    told(successor, two)
    assert not two.commands(Attach) + two.commands(Detach), "the engine follows by itself"


def test_an_m_line_that_can_play_nothing_is_not_taken_and_that_is_told() -> None:
    worker = desk()
    worker.publish(sdp=offer(codecs="vp9"))
    reply = worker.watch(sdp=offer(direction="recvonly", codecs="vp8"))
    assert reply.status == 201
    assert b"m=video 0 " in reply.body
    assert [(one.kind.value, one.codec.value) for one in worker.all(StreamUnplayable)] == [("video", "vp9")]
    assert worker.control.counters.values['millrace_streams_unplayable_total{codec="vp9"}'] == 1
