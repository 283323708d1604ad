import re

import jwt
import pytest

from millrace.relay.access.grants import make_token
from millrace.relay.config.model import ArenaConfig, AuthConfig, Config, HttpConfig, LimitsConfig
from millrace.relay.contract.commands import CloseTransport, DtlsRole, OpenTransport, Publish
from millrace.relay.contract.effects import Announce, Reply, SessionEnded, SessionOpened, Submit
from millrace.relay.contract.facts import ParticipantGone, ParticipantHere, PublicationGone, PublicationHere
from millrace.relay.contract.inputs import Deleted, Patched
from tests.unit.control_kit import NOW, body, desk, facts, header, offer, session_of, told

SECRET = "s" * 32
LOCKED = Config(auth=AuthConfig(keys={"key": SECRET}))


def token(room: str = "hall", identity: str = "ann", **grants: bool) -> str:
    return make_token("key", SECRET, identity=identity, room=room, expires_at=NOW + 60, **grants)


def test_under_a_proxys_path_the_session_is_named_with_it() -> None:
    reply = desk(Config(http=HttpConfig(public_path="/site/media"))).publish()
    assert header(reply, "Location").startswith("/site/media/whip/hall/00.")


def test_a_publisher_is_answered_with_everything_whip_asks_for() -> None:
    reply = desk(slot=3).publish()
    assert reply.status == 201
    assert header(reply, "Content-Type") == "application/sdp"
    assert re.fullmatch(r"/whip/hall/03\.[A-Za-z0-9_-]{22}", header(reply, "Location"))
    assert re.fullmatch(r'"[A-Za-z0-9_-]+"', header(reply, "ETag"))
    assert reply.body.startswith(b"v=0\r\n")
    assert b"a=ice-ufrag:03" in reply.body
    assert b"a=candidate:" in reply.body


def test_the_engine_hears_of_a_publisher_before_the_client_does() -> None:
    worker = desk(slot=2)
    worker.publish()
    kinds = [type(effect) for effect in worker.effects]
    assert kinds.index(Submit) < kinds.index(Reply)
    (opened,) = worker.commands(OpenTransport)
    assert opened.dtls_role is DtlsRole.SERVER
    assert opened.expects_media
    assert (opened.remote_ufrag, opened.fingerprints) == ("abcd", (b"\x11" * 32,))
    audio, video = worker.commands(Publish)
    assert {audio.transport, video.transport} == {opened.transport}
    assert [one.log // 1024 for publish in (audio, video) for one in publish.encodings] == [2, 2]


def test_a_publisher_is_announced_with_its_tracks() -> None:
    worker = desk(slot=1, incarnation=4)
    reply = worker.publish()
    here, audio, video = facts(worker)
    assert isinstance(here, ParticipantHere)
    assert (here.session, here.publishes, here.joined_at) == (session_of(reply), True, NOW)
    assert isinstance(audio, PublicationHere)
    assert isinstance(video, PublicationHere)
    assert (audio.position, video.position) == (0, 0)
    envelopes = [announce.envelope for announce in worker.all(Announce)]
    assert [(one.slot, one.incarnation, one.sequence) for one in envelopes] == [(1, 4, 1), (1, 4, 2), (1, 4, 3)]
    assert len(worker.all(SessionOpened)) == 1


def test_deleting_a_session_closes_it_everywhere_and_frees_what_it_had() -> None:
    worker = desk(Config(arena=ArenaConfig(logs_per_slot=2)))
    for _ in range(3):
        reply = worker.publish()
        assert reply.status == 201
        worker.handle(Deleted(worker.number(), session_of(reply), None))
        assert worker.reply().status == 200
        assert len(worker.commands(CloseTransport)) == 1
        assert [type(fact) for fact in facts(worker)] == [PublicationGone, PublicationGone, ParticipantGone]
        assert [ended.cause for ended in worker.all(SessionEnded)] == ["deleted"]
    assert not worker.control.directory.view()


def test_a_session_that_is_over_is_unknown() -> None:
    worker = desk()
    session = session_of(worker.publish())
    worker.handle(Deleted(worker.number(), session, None))
    worker.handle(Deleted(worker.number(), session, None))
    assert worker.reply().status == 404


@pytest.mark.parametrize("room", ["", "a" * 257, "..", ".", "a\n", "\x7f", "\u0085", "\ud800", "a\0"])
def test_a_rooms_name_that_is_none_is_refused(room: str) -> None:
    reply = desk().publish(room=room)
    assert (reply.status, body(reply)["title"]) == (400, "room name")
    assert header(reply, "Content-Type") == "application/problem+json"


def test_a_rooms_name_is_encoded_in_the_location() -> None:
    reply = desk().publish(room="Ann's café/2")
    assert header(reply, "Location").startswith("/whip/Ann%27s%20caf%C3%A9%2F2/00.")


@pytest.mark.parametrize("room", ["a", "é" * 256, "a.b-c_D9", "...", "My Room", "a/b", "café", "%41", "🎥"])
def test_a_rooms_name_is_taken(room: str) -> None:
    assert desk().publish(room=room).status == 201


def test_a_refused_offer_leaves_nothing_behind() -> None:
    worker = desk()
    reply = worker.publish(sdp="v=0\r\n")
    assert reply.status == 400
    assert body(reply)["type"] == "urn:millrace:problem:no-media"
    assert worker.effects == [reply]
    assert len(worker.control.sessions) == 0


def test_without_a_token_nobody_publishes_on_a_locked_server() -> None:
    reply = desk(LOCKED).publish()
    assert reply.status == 401
    assert header(reply, "WWW-Authenticate") == "Bearer"


@pytest.mark.parametrize(
    ("grants", "status", "reason"),
    [
        ({"room": "attic"}, 403, "other-room"),
        ({"can_publish": False}, 403, "may-not-publish"),
    ],
)
def test_a_token_that_does_not_grant_it_is_refused_with_the_reason(
    grants: dict[str, object], status: int, reason: str
) -> None:
    reply = desk(LOCKED).publish(token=token(**grants))  # type: ignore[arg-type]
    assert (reply.status, body(reply)["type"]) == (status, f"urn:millrace:problem:{reason}")


@pytest.mark.parametrize(
    ("sources", "kinds", "refused"),
    [
        (["microphone"], ["audio"], None),
        (["MICROPHONE", "Camera"], ["audio", "video"], None),
        (["microphone"], ["audio", "video"], "The offer sends video; the token grants microphone."),
        (["camera", "screen_share"], ["audio"], "The offer sends audio; the token grants camera, screen_share."),
        (["screen_share", "screen_share_audio"], ["audio", "video"], None),
        (["else"], ["audio"], "The offer sends audio; the token grants no source that is known here."),
        ([], ["audio", "video"], None),
    ],
)
def test_only_the_kinds_of_granted_sources_are_published(
    sources: list[str], kinds: list[str], refused: str | None
) -> None:
    video = {"room": "hall", "roomJoin": True, "canPublishSources": sources}
    claims = {"iss": "key", "sub": "ann", "exp": NOW + 60, "video": video}
    signed = jwt.encode(claims, SECRET, algorithm="HS256")
    worker = desk(LOCKED)
    reply = worker.publish(sdp=offer(kinds), token=signed)
    if refused is None:
        assert reply.status == 201
    else:
        assert (reply.status, body(reply)["detail"]) == (403, refused)
        assert worker.effects == [reply]
    # What a participant sends is bounded, not what it watches; nor an m-line on which it sends nothing.
    assert worker.watch(token=signed).status == 201
    receiving = offer(["video"], direction="recvonly").replace("a=mid:0", "a=mid:1")
    both = offer(["audio"]) + receiving[receiving.index("m=video") :]
    if refused is None and kinds == ["audio"]:
        assert worker.publish(sdp=both.replace("BUNDLE 0", "BUNDLE 0 1"), token=signed).status == 201


def test_sources_that_cannot_be_read_keep_nobody_from_watching() -> None:
    video = {"room": "hall", "roomJoin": True, "canPublishSources": "camera"}
    signed = jwt.encode({"iss": "key", "sub": "ann", "exp": NOW + 60, "video": video}, SECRET, algorithm="HS256")
    worker = desk(LOCKED)
    assert worker.publish(token=signed).status == 403
    session = session_of(worker.watch(token=signed))
    worker.handle(Deleted(worker.number(), session, signed))
    assert worker.reply().status == 200


def test_the_tokens_identity_is_the_participant() -> None:
    worker = desk(LOCKED)
    assert worker.publish(token=token(identity="ann")).status == 201
    assert {fact.participant for fact in worker.control.directory.view() if isinstance(fact, ParticipantHere)} == {
        "ann"
    }


def test_only_its_owner_ends_a_session_on_a_locked_server() -> None:
    worker = desk(LOCKED)
    session = session_of(worker.publish(token=token(identity="ann")))
    for other, status in ((None, 401), (token(identity="bob"), 403), (token(room="attic"), 403)):
        worker.handle(Deleted(worker.number(), session, other))
        assert worker.reply().status == status
    worker.handle(Deleted(worker.number(), session, token(identity="ann")))
    assert worker.reply().status == 200


def test_a_token_that_has_expired_since_still_changes_and_ends_its_session() -> None:
    worker = desk(LOCKED)
    old = token()
    session = session_of(worker.publish(token=old))
    worker.now += 3600
    assert worker.publish(token=old).status == 401
    for other in (token(identity="bob"), token(room="attic"), token(can_publish=False)):
        worker.handle(Deleted(worker.number(), session, other))
        assert worker.reply().status == 403
    restart = "a=ice-ufrag:wxyz\r\na=ice-pwd:0123456789abcdefghijklmn\r\n"
    worker.handle(Patched(worker.number(), session, old, "*", restart))
    assert worker.reply().status == 200
    worker.handle(Deleted(worker.number(), session, old))
    assert worker.reply().status == 200


def test_a_token_that_had_expired_before_touches_no_session() -> None:
    worker = desk(LOCKED)
    old = token()
    worker.now += 3600
    later = make_token("key", SECRET, identity="ann", room="hall", expires_at=worker.now + 60, not_before=worker.now)
    session = session_of(worker.publish(token=later))
    worker.handle(Deleted(worker.number(), session, old))
    assert (worker.reply().status, body(worker.reply())["type"]) == (401, "urn:millrace:problem:expired")
    worker.set_by = -600.0
    worker.handle(Deleted(worker.number(), session, later))
    assert worker.reply().status == 200


def test_a_participant_that_publishes_again_after_the_clock_was_set_back_replaces_itself() -> None:
    one, two = desk(LOCKED, slot=0), desk(LOCKED, slot=1)
    one.publish(token=token())
    told(one, two)
    two.set_by = -3600.0
    new = session_of(two.publish(token=token()))
    told(two, one)
    assert one.control.sessions.all() == []
    assert [session.id for session in two.control.sessions.all()] == [new]
    again = session_of(two.publish(token=token()))
    assert [session.id for session in two.control.sessions.all()] == [again]


def test_the_admin_ends_a_session_without_a_token() -> None:
    worker = desk(LOCKED)
    session = session_of(worker.publish(token=token()))
    worker.handle(Deleted(worker.number(), session, None, by_admin=True))
    assert worker.reply().status == 200
    assert [ended.cause for ended in worker.all(SessionEnded)] == ["deleted_by_admin"]


def test_publishing_again_replaces_the_older_session() -> None:
    worker = desk(LOCKED)
    old = session_of(worker.publish(token=token()))
    worker.now += 1
    new = session_of(worker.publish(token=token()))
    assert [(ended.session, ended.cause) for ended in worker.all(SessionEnded)] == [(old, "replaced")]
    assert {fact.session for fact in worker.control.directory.view()} == {new}
    worker.handle(Deleted(worker.number(), old, token()))
    assert (worker.reply().status, body(worker.reply())["type"]) == (404, "urn:millrace:problem:session-replaced")
    worker.handle(Deleted(worker.number(), new, token()))
    worker.handle(Deleted(worker.number(), new, token()))
    assert (worker.reply().status, body(worker.reply())["type"]) == (404, "urn:millrace:problem:session-unknown")


def test_publishing_again_on_another_worker_replaces_the_older_session() -> None:
    one, two = desk(LOCKED, slot=0), desk(LOCKED, slot=1)
    old = session_of(one.publish(token=token()))
    told(one, two)
    two.now += 1
    two.publish(token=token())
    assert not two.all(SessionEnded)
    told(two, one)
    assert len(one.control.sessions) == 0
    assert old not in {fact.session for fact in one.control.directory.view()}


def test_the_same_identity_in_another_room_replaces_nothing() -> None:
    worker = desk(LOCKED)
    worker.publish(token=token(room="hall"))
    worker.publish(room="attic", token=token(room="attic"))
    assert len(worker.control.sessions) == 2


def test_a_full_worker_asks_to_come_again() -> None:
    worker = desk(Config(limits=LimitsConfig(sessions_per_worker=1)))
    assert worker.publish().status == 201
    reply = worker.publish()
    assert reply.status == 503
    assert int(header(reply, "Retry-After")) > 0


@pytest.mark.parametrize(
    "config",
    [
        Config(limits=LimitsConfig(publications_per_worker=3)),
        Config(arena=ArenaConfig(logs_per_slot=3)),
    ],
)
def test_a_worker_without_publications_left_asks_to_come_again(config: Config) -> None:
    worker = desk(config)
    assert worker.publish().status == 201
    assert worker.publish().status == 503
    assert worker.publish(sdp=offer(["audio"])).status == 201
    assert worker.watch().status == 201
