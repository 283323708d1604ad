"""Who may do what: tokens first, then the rules of the configuration."""

import pytest

from millrace.relay.access.decision import NAMELESS, Admitted, Gate
from millrace.relay.access.grants import make_token
from millrace.relay.config.model import AuthConfig
from millrace.relay.contract.access import Action, HookOutcome, HookQuestion, HookReplied, Visitor
from millrace.relay.contract.refusal import Refusal
from tests.unit.control_kit import NOW, moment

SECRET = "s" * 32
KEYS = {"key": SECRET}
SHARED = AuthConfig(keys=KEYS, public_rooms=("lobby", "public-*"), publish_from=("192.168.7.0/24",))
INSIDE, OUTSIDE = "192.168.7.20", "203.0.113.9"


def token(room: str = "hall", expires_at: float = NOW + 60, **grants: bool) -> str:
    return make_token("key", SECRET, identity="ann", room=room, expires_at=expires_at, **grants)


def decided(action: Action, room: str, visitor: Visitor, auth: AuthConfig = SHARED) -> Admitted | str:
    decision = Gate(auth).decide(action, room, visitor, moment(NOW))
    return decision if isinstance(decision, Admitted) else decision.reason


def test_without_keys_everybody_may_do_everything() -> None:
    assert all(decided(action, "hall", Visitor(), AuthConfig()) == NAMELESS for action in Action)
    assert Gate(AuthConfig()).visible_rooms(Visitor(), moment(NOW)) == ("*",)


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
    assert Gate(SHARED).visible_rooms(Visitor(shown), moment(NOW)) == rooms


def test_without_public_rooms_the_list_needs_a_token() -> None:
    refused = Gate(AuthConfig(keys=KEYS)).visible_rooms(Visitor(), moment(NOW))
    assert isinstance(refused, Refusal)
    assert (refused.status, refused.reason) == (401, "no-token")


HOOKED = AuthConfig(keys=KEYS, public_rooms=("lobby",), publish_from=("192.168.7.0/24",), hook="https://app.example/")


def asked(action: Action, room: str, visitor: Visitor, auth: AuthConfig = HOOKED) -> HookQuestion | Admitted | Refusal:
    return Gate(auth).decide(action, room, visitor, moment(NOW))


@pytest.mark.parametrize("action", [Action.PUBLISH, Action.WATCH])
@pytest.mark.parametrize("shown", [None, "opaque", make_token("other", SECRET, identity="a", room="r", expires_at=9e9)])
def test_the_hook_is_asked_of_whom_neither_our_keys_nor_a_rule_know(action: Action, shown: str | None) -> None:
    visitor = Visitor(shown, OUTSIDE, participant="bob")
    assert asked(action, "hall", visitor) == HookQuestion(action, "hall", shown, OUTSIDE, "bob")
    assert asked(action, "hall", visitor, AuthConfig(hook="https://app.example/")) == asked(action, "hall", visitor)


def test_a_token_of_our_keys_decides_without_the_hook() -> None:
    assert asked(Action.WATCH, "hall", Visitor(token())) == Admitted("ann", (), by_key=True)  # type: ignore[arg-type]
    forged = make_token("key", "x" * 32, identity="ann", room="hall", expires_at=NOW + 60)
    for shown, reason in (
        (token(can_subscribe=False), "may-not-subscribe"),
        (token("attic"), "other-room"),
        (token(expires_at=NOW - 600), "expired"),
        (forged, "bad-signature"),
        ("x" * 8193, "malformed-token"),
    ):
        refused = asked(Action.WATCH, "hall", Visitor(shown))
        assert isinstance(refused, Refusal)
        assert refused.reason == reason


def test_a_rule_decides_without_the_hook() -> None:
    assert asked(Action.WATCH, "lobby", Visitor("opaque")) == NAMELESS
    assert asked(Action.PUBLISH, "hall", Visitor("opaque", INSIDE)) == NAMELESS


def test_the_hooks_answer_decides_the_rest_while_it_holds() -> None:
    gate, visitor = Gate(HOOKED), Visitor("opaque", OUTSIDE)
    question = gate.decide(Action.PUBLISH, "hall", visitor, moment(NOW))
    assert isinstance(question, HookQuestion)
    granted = HookReplied(200, b'{"identity": "bob", "can_publish_sources": ["camera"]}')
    gate.hook.take(question, granted, moment(NOW).steady)
    admitted = gate.decide(Action.PUBLISH, "hall", visitor, moment(NOW))
    assert admitted == Admitted("bob", ("camera",), by_key=False)  # type: ignore[arg-type]
    assert gate.decide(Action.PUBLISH, "hall", visitor, moment(NOW + 11)) == question
    gate.hook.take(question, HookReplied(403, b'{"reason": "banned"}'), moment(NOW).steady)
    assert gate.decide(Action.PUBLISH, "hall", visitor, moment(NOW)) == Refusal(403, "hook-refused", "banned")


def test_the_hook_says_which_rooms_are_listed_to_whoever_shows_its_token() -> None:
    gate, visitor = Gate(HOOKED), Visitor("opaque", OUTSIDE)
    assert gate.visible_rooms(Visitor(), moment(NOW)) == ("lobby",)
    question = gate.visible_rooms(visitor, moment(NOW))
    assert question == HookQuestion(Action.LIST, "", "opaque", OUTSIDE)
    assert isinstance(question, HookQuestion)
    for answer, rooms in ((b'{"rooms": ["a", "b-*"]}', ("a", "b-*", "lobby")), (b"{}", ("lobby",))):
        gate.hook.take(question, HookReplied(200, answer), moment(NOW).steady)
        assert gate.visible_rooms(visitor, moment(NOW)) == rooms
    gate.hook.take(question, HookOutcome.TIMEOUT, moment(NOW).steady)
    assert gate.visible_rooms(visitor, moment(NOW)) == ("lobby",)
    bare = Gate(AuthConfig(hook="https://app.example/"))
    assert bare.visible_rooms(Visitor(), moment(NOW)) == HookQuestion(Action.LIST, "", None, "")
