"""Who may do what: tokens first, then the rules of the configuration."""

import pytest

from millrace.relay.access.decision import NAMELESS, Admitted, decide, visible_rooms
from millrace.relay.access.grants import make_token
from millrace.relay.config.model import AuthConfig
from millrace.relay.contract.access import Action, Visitor
from millrace.relay.contract.refusal import Refusal
from tests.unit.control_kit import NOW, moment

SECRET = "s" * 32
KEYS = {"key": SECRET}
SHARED = AuthConfig(keys=KEYS, public_rooms=("lobby", "public-*"), publish_from=("192.168.7.0/24",))
INSIDE, OUTSIDE = "192.168.7.20", "203.0.113.9"


def token(room: str = "hall", expires_at: float = NOW + 60, **grants: bool) -> str:
    return make_token("key", SECRET, identity="ann", room=room, expires_at=expires_at, **grants)


def decided(action: Action, room: str, visitor: Visitor, auth: AuthConfig = SHARED) -> Admitted | str:
    decision = decide(action, room, visitor, auth, moment(NOW))
    return decision if isinstance(decision, Admitted) else decision.reason


def test_without_keys_everybody_may_do_everything() -> None:
    assert all(decided(action, "hall", Visitor(), AuthConfig()) == NAMELESS for action in Action)
    assert visible_rooms(Visitor(), AuthConfig(), moment(NOW)) == ("*",)


def test_a_token_admits_under_its_identity_and_grants_its_sources() -> None:
    admitted = decided(Action.WATCH, "hall", Visitor(token()))
    assert admitted == Admitted("ann", (), by_key=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("room", ["lobby", "public-1"])
def test_anybody_watches_a_public_room_and_nobody_publishes_there_without_a_token(room: str) -> None:
    assert decided(Action.WATCH, room, Visitor(address=OUTSIDE)) == NAMELESS
    assert decided(Action.PUBLISH, room, Visitor(address=OUTSIDE)) == "no-token"
    assert decided(Action.PUBLISH, room, Visitor(token(room))) == Admitted("ann", (), by_key=True)  # type: ignore[arg-type]


def test_other_rooms_need_a_token_as_without_rules() -> None:
    assert decided(Action.WATCH, "hall", Visitor(address=INSIDE)) == "no-token"
    assert decided(Action.WATCH, "public", Visitor()) == "no-token"


@pytest.mark.parametrize(
    "shown", ["nonsense", token("other"), token("lobby", NOW - 600), token("lobby", can_subscribe=False)]
)
def test_a_token_that_grants_nothing_takes_nothing_away_that_anybody_may_do(shown: str) -> None:
    assert decided(Action.WATCH, "lobby", Visitor(shown)) == NAMELESS


def test_a_watching_tokens_bearer_is_known_in_a_public_room_too() -> None:
    assert decided(Action.WATCH, "lobby", Visitor(token("lobby"))) == Admitted("ann", (), by_key=True)  # type: ignore[arg-type]


def test_listed_networks_publish_without_a_token_and_only_publish() -> None:
    assert decided(Action.PUBLISH, "hall", Visitor(address=INSIDE)) == NAMELESS
    assert decided(Action.PUBLISH, "hall", Visitor(address=OUTSIDE)) == "no-token"
    assert decided(Action.PUBLISH, "hall", Visitor("nonsense", OUTSIDE)) == "malformed-token"
    assert decided(Action.WATCH, "hall", Visitor(address=INSIDE)) == "no-token"


def test_another_sites_page_does_not_publish_from_a_listed_network() -> None:
    assert decided(Action.PUBLISH, "hall", Visitor(None, INSIDE, is_other_site=True)) == "no-token"
    assert decided(Action.WATCH, "lobby", Visitor(None, INSIDE, is_other_site=True)) == NAMELESS


@pytest.mark.parametrize(
    ("shown", "rooms"),
    [
        (None, ("lobby", "public-*")),
        ("nonsense", ("lobby", "public-*")),
        (token("hall"), ("hall", "lobby", "public-*")),
    ],
)
def test_the_list_has_the_public_rooms_and_that_of_the_token(shown: str | None, rooms: tuple[str, ...]) -> None:
    assert visible_rooms(Visitor(shown), SHARED, moment(NOW)) == rooms


def test_without_public_rooms_the_list_needs_a_token() -> None:
    refused = visible_rooms(Visitor(), AuthConfig(keys=KEYS), moment(NOW))
    assert isinstance(refused, Refusal)
    assert (refused.status, refused.reason) == (401, "no-token")
