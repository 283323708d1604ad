from millrace.relay.access.grants import make_token
from millrace.relay.config.model import AuthConfig, Config
from millrace.relay.contract.commands import CloseTransport, OpenTransport, Publish, ReportTransport
from millrace.relay.contract.effects import CloseRoomEverywhere
from millrace.relay.contract.events import (
    Cause,
    PublicationReport,
    PublicationStarted,
    TransportClosed,
    TransportConnected,
    TransportReport,
    TransportStalled,
)
from millrace.relay.contract.inputs import (
    Deleted,
    EngineSaid,
    RoomClosedElsewhere,
    RoomDeleted,
    RoomsAsked,
    RoomsListed,
    SessionAsked,
    Ticked,
)
from millrace.relay.membership.tombstones import MAX_TOMBSTONES, TOMBSTONE_SECONDS
from millrace.relay.session.pending_reports import REPORT_SECONDS
from tests.unit.control_kit import NOW, Desk, body, desk, offer, session_of, told

SECRET = "s" * 32
LOCKED = Config(auth=AuthConfig(keys={"key": SECRET}))


def token(identity: str, room: str = "hall") -> str:
    return make_token("key", SECRET, identity=identity, room=room, expires_at=2e9)


def test_rooms_are_listed_with_those_who_publish() -> None:
    worker = desk(slot=2)
    session = session_of(worker.publish())
    worker.watch()
    worker.watch(room="attic")
    worker.handle(RoomsAsked(worker.number()))
    attic, hall = body(worker.reply())
    (publisher,) = hall["publishers"]
    assert attic == {"name": "attic", "participants": 1, "publishers": [], "viewers": 1}
    assert (hall["name"], hall["participants"], hall["viewers"]) == ("hall", 2, 1)
    assert (publisher["session"], publisher["slot"]) == (session, 2)
    assert publisher["tracks"] == [{"kind": "audio", "codec": "opus"}, {"kind": "video", "codec": "vp8"}]


def test_rooms_of_other_workers_are_listed_too() -> None:
    one, two = desk(slot=0), desk(slot=1)
    one.publish()
    told(one, two)
    two.handle(RoomsAsked(two.number(), "hall"))
    assert body(two.reply())["publishers"][0]["slot"] == 0


def test_a_room_has_the_session_of_everybody_in_it_with_its_slot() -> None:
    one, two = desk(slot=0), desk(slot=1)
    publisher, viewer = session_of(one.publish()), session_of(two.watch())
    told(one, two)
    two.handle(RoomsAsked(two.number(), "hall"))
    here = body(two.reply())["sessions"]
    assert [(each["session"], each["slot"]) for each in here if each["publishes"]] == [(publisher, 0)]
    assert [(each["session"], each["slot"]) for each in here if not each["publishes"]] == [(viewer, 1)]


def test_the_public_list_has_no_session() -> None:
    worker = desk()
    session = session_of(worker.publish())
    worker.handle(RoomsListed(worker.number(), None))
    assert session.encode() not in worker.reply().body
    assert body(worker.reply())[0]["publishers"][0]["participant"].startswith("guest-")


def test_a_room_that_nobody_is_in_is_unknown() -> None:
    worker = desk()
    for asked in (
        RoomsAsked(worker.number(), "hall"),
        RoomsAsked(worker.number(), "?"),
        RoomDeleted(worker.number(), "hall"),
    ):
        worker.handle(asked)
        assert worker.reply().status == 404


def test_deleting_a_room_ends_its_sessions_on_all_workers() -> None:
    one, two = desk(slot=0), desk(slot=1)
    one.publish()
    told(one, two)
    two.watch()
    two.publish(room="attic")
    two.handle(RoomDeleted(two.number(), "hall"))
    assert two.all(CloseRoomEverywhere) == [CloseRoomEverywhere("hall")]
    assert two.reply().status == 204
    assert len(two.control.sessions) == 1
    one.handle(RoomClosedElsewhere("hall"))
    assert len(one.control.sessions) == 0
    assert len(one.commands(CloseTransport)) == 1


def ask(worker: Desk, session: str) -> dict[str, object]:
    worker.handle(SessionAsked(worker.number(), session))
    reports = worker.commands(ReportTransport)
    if reports:
        (command,) = reports
        publication = PublicationReport(
            next(iter(worker.control.sessions.all()[0].publications)), 1, 2, 3, 4, 5.0, 6, 7, 8
        )
        report = TransportReport(
            command.transport,
            command.request,
            "connected",
            "192.0.2.1:5",
            "p",
            1,
            2,
            3,
            4,
            (("srtp_replay", 9),),
            1.5,
            (publication,),
            (),
        )
        worker.handle(EngineSaid(report))
    assert worker.reply().status == 200
    return dict(body(worker.reply()))


def test_a_session_is_shown_with_its_transports_statistics() -> None:
    worker = desk()
    session = session_of(worker.publish())
    (opened,) = worker.commands(OpenTransport)
    assert ask(worker, session)["state"] == "connecting"
    worker.handle(EngineSaid(TransportConnected(opened.transport, "p", "DTLSv1.2", 1)))
    view = ask(worker, session)
    assert (view["state"], view["room"], view["protocol"], view["cause"]) == ("connected", "hall", "whip", None)
    transport = view["transport"]
    assert isinstance(transport, dict)
    assert (transport["drops"], transport["round_trip_ms"]) == ({"srtp_replay": 9}, 1.5)
    assert transport["publications"][0]["packets"] == 1


def test_a_session_without_media_says_so_until_media_comes() -> None:
    worker = desk()
    session = session_of(worker.publish())
    (opened,), publish = worker.commands(OpenTransport), worker.commands(Publish)[0]
    for _ in range(2):
        worker.handle(EngineSaid(TransportStalled(opened.transport, Cause.NO_SRTP)))
    assert ask(worker, session)["cause"] == "no_srtp"
    assert worker.control.counters.values['millrace_sessions_failed_total{cause="no_srtp"}'] == 1
    worker.handle(EngineSaid(PublicationStarted(publish.publication)))
    assert ask(worker, session)["cause"] is None


def test_a_session_that_failed_is_remembered_with_one_cause() -> None:
    worker = desk()
    session = session_of(worker.publish())
    (opened,) = worker.commands(OpenTransport)
    worker.now += 15
    worker.handle(EngineSaid(TransportClosed(opened.transport, Cause.FINGERPRINT_MISMATCH)))
    view = ask(worker, session)
    assert (view["state"], view["cause"]) == ("ended", "fingerprint_mismatch")
    assert (view["opened_at"], view["ended_at"]) == (NOW, NOW + 15)


def test_memories_of_sessions_are_bounded_in_time_and_number() -> None:
    worker = desk()
    sessions = []
    for _ in range(MAX_TOMBSTONES + 1):
        sessions.append(session_of(worker.watch(sdp=offer(["audio"], direction="recvonly"))))
        worker.handle(Deleted(worker.number(), sessions[-1], None))
    assert worker.control.tombstones.get(sessions[0]) is None
    assert worker.control.tombstones.get(sessions[1]) is not None
    worker.now += TOMBSTONE_SECONDS
    worker.handle(Ticked())
    assert worker.control.tombstones.get(sessions[-1]) is None


def test_a_request_whose_session_ends_first_gets_its_end() -> None:
    worker = desk()
    session = session_of(worker.publish())
    worker.handle(SessionAsked(worker.number(), session))
    (command,) = worker.commands(ReportTransport)
    worker.handle(EngineSaid(TransportClosed(command.transport, Cause.CONSENT_LOST)))
    assert body(worker.reply())["cause"] == "consent_lost"
    assert worker.reply().request == command.request


def test_a_request_that_the_engine_does_not_answer_is_answered_in_time() -> None:
    worker = desk()
    worker.handle(SessionAsked(worker.number(), session_of(worker.publish())))
    worker.now += REPORT_SECONDS
    worker.handle(Ticked())
    assert worker.reply().status == 504


def test_a_bearer_sees_the_room_of_its_token_and_no_other() -> None:
    worker = desk(LOCKED)
    worker.publish(token=token("ann"))
    for presented, status, names in (
        (token("zoe"), 200, ["hall"]),
        (token("zoe", "attic"), 200, []),
        (None, 401, []),
        ("x.y.z", 401, []),
        (token("zoe", ""), 403, []),
    ):
        worker.handle(RoomsListed(worker.number(), presented))
        assert worker.reply().status == status
        if status == 200:
            assert [room["name"] for room in body(worker.reply())] == names
