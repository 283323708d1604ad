import pytest

from millrace.relay.access.grants import make_token
from millrace.relay.config.model import AuthConfig, Config
from millrace.relay.contract.commands import (
    Attach,
    CodecName,
    Detach,
    MediaKind,
    OpenTransport,
    Publish,
    SaveRecord,
    SetWish,
    Subscribe,
)
from millrace.relay.contract.effects import Submit
from millrace.relay.contract.events import PublicationEnded
from millrace.relay.contract.facts import ParticipantHere, PublicationHere
from millrace.relay.contract.ids import Slot
from millrace.relay.contract.inputs import Deleted, EngineSaid, Offered, SlotChanged, Ticked
from millrace.relay.contract.protocol import Protocol
from millrace.relay.membership.remote_worker import HOLD_SECONDS
from tests.unit.control_kit import Desk, body, desk, header, offer, session_of, told

SECRET = "s" * 32
LOCKED = Config(auth=AuthConfig(keys={"key": SECRET}))


def token(identity: str, room: str = "hall") -> str:
    return make_token("key", SECRET, identity=identity, room=room, expires_at=2e9)


def fed(worker: Desk) -> dict[MediaKind, int | None]:
    """What the only viewer's streams are fed from, by kind."""
    (viewer,) = [session for session in worker.control.sessions.all() if session.receiving]
    return {one.receiver.kind: one.publication for one in viewer.receiving}


def published(worker: Desk) -> dict[MediaKind, int]:
    return {publish.kind: publish.publication for publish in worker.commands(Publish)}


def test_a_viewer_is_answered_and_its_streams_are_open() -> None:
    worker = desk(slot=5)
    reply = worker.watch()
    assert reply.status == 201
    assert header(reply, "Location").startswith("/whep/hall/05.")
    (opened,) = worker.commands(OpenTransport)
    assert not opened.expects_media
    audio, video = worker.commands(Subscribe)
    assert len({audio.ssrc, video.ssrc}) == 2
    assert audio.cname == video.cname
    assert f"a=ssrc:{video.ssrc} cname:{video.cname}".encode() in reply.body


def ask(worker: Desk, max_height: str, protocol: Protocol = Protocol.WHEP) -> None:
    direction = "recvonly" if protocol is Protocol.WHEP else "sendonly"
    sdp = offer(direction=direction)
    worker.handle(Offered(worker.number(), protocol, "hall", None, sdp, None, max_height=max_height))


def test_a_viewer_says_how_high_it_shows_pictures() -> None:
    worker = desk()
    ask(worker, "360")
    (video,) = [one for one in worker.commands(Subscribe) if one.kind is MediaKind.VIDEO]
    assert worker.commands(SetWish) == [SetWish(video.subscription, 360)]
    worker.watch()
    assert worker.commands(SetWish) == []


@pytest.mark.parametrize("text", ["", "0", "-1", "16385", "99999999", "360p", "3.6", "\u0663\u0666"])
def test_a_height_that_is_none_is_refused_with_what_is_expected(text: str) -> None:
    worker = desk()
    ask(worker, text)
    reply = worker.reply()
    assert reply.status == 400
    assert b"1 to 16384" in reply.body
    ask(worker, text, Protocol.WHIP)
    assert worker.reply().status == 201, "a publisher's is not looked at"


def test_a_viewer_of_a_publisher_is_fed_at_once() -> None:
    worker = desk()
    worker.publish()
    tracks = published(worker)
    worker.watch()
    assert {one.publication for one in worker.commands(Attach)} == set(tracks.values())
    assert fed(worker) == tracks
    subscribed, attached, kept = worker.all(Submit)
    assert all(isinstance(command, Attach) for command in attached.commands)
    assert all(isinstance(command, SaveRecord) for command in kept.commands)
    assert isinstance(subscribed.commands[0], OpenTransport)


def test_a_viewer_that_came_first_is_fed_when_the_publisher_comes() -> None:
    worker = desk()
    worker.watch()
    assert not worker.commands(Attach)
    worker.publish()
    assert fed(worker) == published(worker)


def test_a_viewer_on_another_worker_is_fed_from_the_publishers_logs() -> None:
    one, two = desk(slot=0), desk(slot=1)
    two.watch()
    one.publish()
    logs = {publish.publication: publish.encodings[0].log for publish in one.commands(Publish)}
    attached: list[Attach] = []
    for announce in list(one.effects):
        one.effects = [announce]
        told(one, two)
        attached += two.commands(Attach)
        two.effects = []
    assert {attach.publication: attach.logs for attach in attached} == {p: (log,) for p, log in logs.items()}


def test_a_viewer_stays_when_the_publisher_leaves_and_is_fed_when_it_returns() -> None:
    worker = desk()
    session = session_of(worker.publish())
    worker.watch()
    worker.handle(Deleted(worker.number(), session, None))
    assert len(worker.commands(Detach)) == 2
    assert fed(worker) == {MediaKind.AUDIO: None, MediaKind.VIDEO: None}
    worker.publish()
    assert fed(worker) == published(worker)


def test_a_viewer_without_a_wish_goes_over_to_the_next_publisher() -> None:
    worker = desk()
    first = session_of(worker.publish())
    worker.now += 1
    worker.publish()
    second = published(worker)
    worker.watch()
    assert fed(worker) != second
    worker.handle(Deleted(worker.number(), first, None))
    assert fed(worker) == second
    assert not worker.commands(Detach)


def test_a_viewer_with_a_wish_waits_for_that_participant() -> None:
    worker = desk(LOCKED)
    worker.publish(token=token("ann"))
    worker.watch(participant="bob", token=token("zoe"))
    assert not worker.commands(Attach)
    worker.now += 1
    worker.publish(token=token("bob"))
    assert fed(worker) == published(worker)


def test_a_participant_that_publishes_again_is_watched_on() -> None:
    worker = desk(LOCKED)
    worker.publish(token=token("ann"))
    worker.watch(participant="ann", token=token("zoe"))
    worker.now += 1
    worker.publish(token=token("ann"))
    assert fed(worker) == published(worker)
    assert not worker.commands(Detach)


def test_the_death_of_the_publishers_worker_stops_the_feed() -> None:
    one, two = desk(slot=0), desk(slot=1)
    one.publish()
    told(one, two)
    two.watch()
    two.handle(SlotChanged(Slot(0), None))
    assert not two.commands(Detach)
    two.now += HOLD_SECONDS
    two.handle(Ticked())
    assert len(two.commands(Detach)) == 2


def test_a_track_that_ended_is_detached_and_the_other_goes_on() -> None:
    worker = desk()
    worker.publish()
    tracks = published(worker)
    worker.watch()
    worker.handle(EngineSaid(PublicationEnded(worker.control.sessions.all()[0].publications.copy().popitem()[0])))
    assert fed(worker) == {MediaKind.AUDIO: tracks[MediaKind.AUDIO], MediaKind.VIDEO: None}


def test_a_viewer_that_lacks_the_publishers_codec_is_refused() -> None:
    worker = desk()
    worker.publish(sdp=offer(["video"], codecs="vp9"))
    reply = worker.watch(sdp=offer(["video"], direction="recvonly", codecs="vp8"))
    assert reply.status == 422


def test_a_publisher_that_comes_after_the_clock_was_set_back_is_still_the_later_one() -> None:
    one, two = desk(slot=0), desk(slot=1)
    one.publish()
    told(one, two)
    one.watch()
    before = fed(one)
    assert None not in before.values()
    two.set_by = one.set_by = -3600.0
    for worker, other in ((one, two), (two, one)):
        worker.publish()
        told(worker, other)
        assert fed(one) == before


def test_a_viewer_is_not_fed_what_it_cannot_play() -> None:
    worker = desk()
    worker.watch(sdp=offer(["video"], direction="recvonly", codecs="vp8"))
    worker.publish(sdp=offer(["video"], codecs="vp9"))
    assert not worker.commands(Attach)


def test_the_codec_is_named_as_the_viewer_numbers_it() -> None:
    worker = desk()
    worker.watch()
    worker.publish(sdp=offer(["video"], codecs="vp9"))
    (attach,) = worker.commands(Attach)
    assert (attach.codec.name, attach.codec.payload_type) == (CodecName.VP9, 98)


def test_the_second_video_is_fed_from_the_second_video() -> None:
    worker = desk()
    worker.publish(sdp=offer(["video", "video"]))
    screen = worker.commands(Publish)[1].publication
    worker.watch(sdp=offer(["video", "audio", "video"], direction="recvonly", codecs="both"))
    streams = [subscribe.subscription for subscribe in worker.commands(Subscribe)]
    assert {attach.subscription: attach.publication for attach in worker.commands(Attach)}[streams[2]] == screen
    assert streams[1] not in {attach.subscription for attach in worker.commands(Attach)}


def test_a_publisher_without_tracks_yet_does_not_hide_another() -> None:
    one, two = desk(slot=0), desk(slot=1)
    one.publish()
    tracks = published(one)
    here = [fact for fact in one.control.directory.view() if isinstance(fact, PublicationHere)]
    assert {fact.publication for fact in here} == set(tracks.values())
    told(one, two)
    early = ParticipantHere(here[0].room, here[0].participant, here[0].session, True, 0.0)
    one.control.directory.apply_own(early)
    two.watch()
    assert fed(two) == tracks


@pytest.mark.parametrize("participant", ["", "a" * 257, "a\nb", "\udc80"])
def test_a_wish_that_is_no_participant_is_refused(participant: str) -> None:
    reply = desk().watch(participant=participant)
    assert (reply.status, body(reply)["title"]) == (400, "participant name")


def test_many_viewers_coming_and_going_leak_no_ssrc_and_no_id() -> None:
    worker = desk()
    for _ in range(20):
        session = session_of(worker.watch())
        worker.handle(Deleted(worker.number(), session, None))
    sessions, numbers = worker.control.sessions, worker.control._ledger.numbers
    assert (len(sessions), len(sessions._by_thing), len(sessions._by_room), len(numbers._ssrcs)) == (0, 0, 0, 0)
    assert (sessions.publications, sessions.subscriptions) == (0, 0)
