"""Rooms that anybody may watch, and networks that may publish, from the POST to the DELETE."""

import pytest

from millrace.relay.access.grants import make_token
from millrace.relay.config.model import AuthConfig, Config
from millrace.relay.contract.effects import SessionOpened
from millrace.relay.contract.inputs import Deleted, Offered, Patched, RoomsListed
from millrace.relay.contract.protocol import Protocol
from millrace.relay.session.record import pack_session, unpack_session
from tests.unit.control_kit import NOW, Desk, body, desk, offer, session_of

SECRET = "s" * 32
SHARED = Config(
    auth=AuthConfig(keys={"key": SECRET}, public_rooms=("lobby", "public-*"), publish_from=("192.168.7.0/24",))
)


def token(room: str = "lobby") -> str:
    return make_token("key", SECRET, identity="ann", room=room, expires_at=NOW + 60)


def status_of(worker: Desk, request: Deleted | Patched | Offered) -> int:
    worker.handle(request)
    return worker.reply().status


def publish_from(worker: Desk, address: str, is_other_site: bool = False) -> int:
    request = Offered(worker.number(), Protocol.WHIP, "hall", None, offer(), None, address, is_other_site)
    return status_of(worker, request)


def test_the_public_watches_what_only_the_owner_publishes() -> None:
    worker = desk(SHARED)
    assert worker.publish("lobby").status == 401
    assert worker.publish("lobby", token=token()).status == 201
    assert worker.watch("lobby").status == 201
    assert worker.watch("lobby", token="expired").status == 201
    assert worker.watch("hall").status == 401


@pytest.mark.parametrize("shown", [None, "nonsense", token()])
def test_a_viewer_without_a_token_has_its_sessions_id_and_needs_no_more(shown: str | None) -> None:
    worker = desk(SHARED)
    session = session_of(worker.watch("lobby"))
    fragment = "a=ice-ufrag:efgh\r\na=ice-pwd:ABCDEFGHIJKLMNOPQRSTUVWX\r\n"
    assert status_of(worker, Patched(worker.number(), session, shown, "*", fragment)) == 200
    assert status_of(worker, Deleted(worker.number(), session, shown)) == 200
    assert status_of(worker, Deleted(worker.number(), session[:-1] + "~", None)) == 404


def test_a_session_that_a_token_opened_in_a_public_room_needs_it_still() -> None:
    worker = desk(SHARED)
    session = session_of(worker.watch("lobby", token=token()))
    assert status_of(worker, Deleted(worker.number(), session, None)) == 401
    assert status_of(worker, Deleted(worker.number(), session, token())) == 200


def test_an_adopted_session_needs_what_it_needed() -> None:
    worker = desk(SHARED)
    for shown, needs_token in ((None, False), (token(), True)):
        worker.watch("lobby", token=shown)
        session = worker.control.sessions.all()[-1]
        assert unpack_session(pack_session(session)).needs_token is needs_token


def test_a_camera_publishes_from_a_listed_network_and_from_no_other() -> None:
    worker = desk(SHARED)
    assert publish_from(worker, "192.168.7.3") == 201
    assert publish_from(worker, "192.168.8.3") == 401
    assert publish_from(worker, "") == 401
    assert publish_from(worker, "192.168.7.3", is_other_site=True) == 401


def test_who_shows_no_token_is_listed_only_what_anybody_may_watch() -> None:
    worker = desk(SHARED)
    for room in ("lobby", "public-1", "hall", "attic"):
        assert worker.publish(room, token=token(room)).status == 201
    for shown, rooms in ((None, ["lobby", "public-1"]), (token("hall"), ["hall", "lobby", "public-1"])):
        worker.handle(RoomsListed(worker.number(), shown))
        assert [room["name"] for room in body(worker.reply())] == rooms


def publish_as(worker: Desk, name: str, shown: str | None = None) -> str:
    address = "192.168.7.20"
    request = Offered(worker.number(), Protocol.WHIP, "hall", shown, offer(), name, address, is_other_site=False)
    worker.handle(request)
    return worker.all(SessionOpened)[-1].participant


def test_where_nobody_needs_a_token_a_publisher_chooses_its_name_and_replaces_itself() -> None:
    worker = desk()
    assert publish_as(worker, "page-1") == "page-1"
    assert publish_as(worker, "page-1") == "page-1"
    worker.handle(RoomsListed(worker.number(), None))
    (room,) = body(worker.reply())
    assert [publisher["participant"] for publisher in room["publishers"]] == ["page-1"]


def test_nobody_takes_the_name_of_a_tokens_bearer() -> None:
    worker = desk(SHARED)
    assert publish_as(worker, "zoe", token("hall")) == "ann"
    assert publish_as(worker, "ann") not in ("ann", "zoe")
