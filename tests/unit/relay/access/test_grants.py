import base64
import json
from typing import Any

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.relay.access.grants import MAX_TOKEN_CHARS, Denial, Grant, check, make_token

SECRET = "a secret of more than thirty-two characters"
KEYS = {"key1": SECRET, "key2": SECRET[::-1]}
NOW = 1_700_000_000.0
CLAIMS: dict[str, Any] = {
    "iss": "key1",
    "sub": "alice",
    "exp": int(NOW) + 600,
    "nbf": int(NOW) - 10,
    "video": {"room": "demo", "roomJoin": True},
}


def signed(secret: str = SECRET, **changes: Any) -> str:
    claims = {key: value for key, value in (CLAIMS | changes).items() if value is not None}
    return jwt.encode(claims, secret, algorithm="HS256")


def unsigned(header: Any, payload: Any, signature: str = "") -> str:
    parts = (base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in (header, payload))
    return ".".join([*parts, signature])


def granted(token: str) -> Grant:
    grant = check(token, KEYS, NOW)
    assert isinstance(grant, Grant), grant
    return grant


def denied(token: str | None, now: float = NOW) -> tuple[int, str]:
    denial = check(token, KEYS, now)
    assert isinstance(denial, Denial), denial
    assert denial.detail
    return denial.status, denial.reason


def test_a_genuine_token_grants_what_it_says() -> None:
    grant = granted(signed())
    assert (grant.identity, grant.room) == ("alice", "demo")
    assert grant.publish_denial("demo") is None
    assert grant.subscribe_denial("demo") is None


def test_each_key_has_its_own_secret() -> None:
    assert granted(signed(KEYS["key2"], iss="key2")).identity == "alice"
    assert denied(signed(KEYS["key2"])) == (401, "bad-signature")


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (None, "no-token"),
        ("", "no-token"),
        ("x", "malformed-token"),
        ("a.b.c", "malformed-token"),
        ("\u00e4.\u00e4.\u00e4", "malformed-token"),
        (unsigned({"alg": "HS256"}, [1]), "malformed-token"),
        (unsigned([], CLAIMS), "malformed-token"),
        ("x" * (MAX_TOKEN_CHARS + 1), "malformed-token"),
        (base64.urlsafe_b64encode(b"[" * 3000).decode() + ".e30.x", "malformed-token"),
        (unsigned({"alg": "none"}, CLAIMS), "wrong-algorithm"),
        (unsigned({"alg": "None"}, CLAIMS), "wrong-algorithm"),
        (unsigned({"alg": "HS512"}, CLAIMS, "AAAA"), "wrong-algorithm"),
        (unsigned({"alg": "HS256"}, CLAIMS), "bad-signature"),
        (jwt.encode(CLAIMS, SECRET * 2, algorithm="HS384"), "wrong-algorithm"),
        (signed(iss="stranger"), "unknown-key"),
        (signed(iss=None), "unknown-key"),
        (unsigned({"alg": "HS256"}, CLAIMS | {"iss": ["key1"]}, "AAAA"), "unknown-key"),
        (signed("another secret of thirty-two characters!"), "bad-signature"),
        (signed()[:-4] + "AAAA", "bad-signature"),
        (signed(exp=None), "malformed-token"),
        (signed(exp="soon"), "malformed-token"),
        (signed(exp=True), "malformed-token"),
        (signed(exp=float("inf")), "malformed-token"),
        (signed(exp=float("nan")), "malformed-token"),
        (signed(nbf="x"), "malformed-token"),
        (signed(sub=None), "malformed-token"),
        (signed(sub=7), "malformed-token"),
        (signed(sub=""), "malformed-token"),
        (signed(sub="a" * 257), "malformed-token"),
        (signed(sub="half \ud83d a pair"), "malformed-token"),
        (signed(sub="two\nlines"), "malformed-token"),
        (signed(exp=int(NOW) - 61), "expired"),
        (signed(nbf=int(NOW) + 62), "not-yet-valid"),
    ],
)
def test_a_token_that_does_not_hold_is_401_and_says_why(token: str | None, reason: str) -> None:
    assert denied(token) == (401, reason)


def test_times_are_checked_against_the_callers_clock_with_a_minutes_leeway() -> None:
    token = signed(exp=1000, nbf=900)
    assert denied(token, 839.9) == (401, "not-yet-valid")
    assert isinstance(check(token, KEYS, 840.1), Grant)
    assert isinstance(check(token, KEYS, 1059.9), Grant)
    assert denied(token, 1060.0) == (401, "expired")
    assert isinstance(check(token, KEYS, 1000.0, leeway=0), Denial)
    assert isinstance(check(token, KEYS, 999.9, leeway=0), Grant)


def test_a_refusal_for_a_clock_says_by_how_much() -> None:
    token = signed(exp=100_000, nbf=900)
    for now, says in ((800.0, "for another 100 s"), (100_090.0, "expired 90 s ago"), (200_000.0, "expired 28 h ago")):
        denial = check(token, KEYS, now)
        assert isinstance(denial, Denial)
        assert says in denial.detail


@pytest.mark.parametrize(
    ("now", "opened_at", "reason"),
    [
        (5000.0, 950.0, None),
        (5000.0, 1059.9, None),
        (5000.0, 1060.0, "expired"),
        (1059.9, 5000.0, None),
        (1060.0, 5000.0, "expired"),
        (800.0, 950.0, None),
    ],
)
def test_a_sessions_token_may_have_expired_since_it_was_opened(
    now: float, opened_at: float, reason: str | None
) -> None:
    checked = check(signed(exp=1000, nbf=900), KEYS, now, opened_at=opened_at)
    assert (checked.reason if isinstance(checked, Denial) else None) == reason


def test_all_else_is_checked_of_a_sessions_token() -> None:
    for bad, reason in (
        (signed(exp=1000)[:-4] + "AAAA", "bad-signature"),
        (signed(exp=None), "malformed-token"),
        (signed(exp="soon"), "malformed-token"),
        (signed(nbf="soon"), "malformed-token"),
    ):
        denial = check(bad, KEYS, NOW, opened_at=950.0)
        assert isinstance(denial, Denial)
        assert denial.reason == reason


@pytest.mark.parametrize(
    ("video", "publish", "subscribe"),
    [
        ({"room": "demo", "roomJoin": True}, None, None),
        ({"room": "demo", "roomJoin": True, "canPublish": False}, "may-not-publish", None),
        ({"room": "demo", "roomJoin": True, "canSubscribe": False}, None, "may-not-subscribe"),
        ({"room": "demo", "roomJoin": True, "canPublish": "yes"}, "may-not-publish", None),
        ({"room": "other", "roomJoin": True}, "other-room", "other-room"),
        ({"roomJoin": True}, "other-room", "other-room"),
        ({"room": ["demo"], "roomJoin": True}, "other-room", "other-room"),
        ({"room": "demo"}, "may-not-join", "may-not-join"),
        ({"room": "demo", "roomJoin": 1}, "may-not-join", "may-not-join"),
    ],
)
def test_what_is_not_granted_is_403_and_says_why(
    video: dict[str, Any], publish: str | None, subscribe: str | None
) -> None:
    grant = granted(signed(video=video))
    for denial, reason in ((grant.publish_denial("demo"), publish), (grant.subscribe_denial("demo"), subscribe)):
        assert (denial and (denial.status, denial.reason)) == (reason and (403, reason))


@pytest.mark.parametrize(
    ("claim", "sources"),
    [(["camera"], ("camera",)), ([], ()), (None, ()), (["nothing", "CamerA"], ("nothing", "camera"))],
)
def test_the_sources_that_may_be_published_are_those_of_the_claim(claim: object, sources: tuple[str, ...]) -> None:
    assert granted(signed(video={"room": "demo", "roomJoin": True, "canPublishSources": claim})).sources == sources


@pytest.mark.parametrize("claim", ["camera", {"camera": True}, ["camera", 7], 7, {}, "", False])
def test_sources_that_are_no_list_of_names_let_their_bearer_watch_and_publish_nothing(claim: object) -> None:
    grant = granted(signed(video={"room": "demo", "roomJoin": True, "canPublishSources": claim}))
    denial = grant.publish_denial("demo")
    assert denial is not None
    assert (denial.status, denial.reason) == (403, "may-not-publish")
    assert "canPublishSources" in denial.detail
    assert grant.subscribe_denial("demo") is None


@pytest.mark.parametrize("video", [None, [], "demo"])
def test_a_token_without_a_video_claim_joins_nothing(video: object) -> None:
    assert denied(signed(video=video)) == (403, "may-not-join")


def test_no_room_has_no_name() -> None:
    assert granted(signed(video={"roomJoin": True})).publish_denial("") is not None


@pytest.mark.parametrize(("publish", "subscribe"), [(True, False), (False, True), (True, True)])
def test_made_tokens_are_taken(publish: bool, subscribe: bool) -> None:
    token = make_token(
        "key1",
        SECRET,
        identity="bob",
        room="demo",
        expires_at=NOW + 60,
        not_before=NOW,
        can_publish=publish,
        can_subscribe=subscribe,
    )
    grant = granted(token)
    assert grant.identity == "bob"
    assert (grant.publish_denial("demo") is None) is publish
    assert (grant.subscribe_denial("demo") is None) is subscribe
    assert grant.subscribe_denial("else") is not None


@settings(max_examples=200, deadline=None)
@given(
    st.text(max_size=200)
    | st.lists(st.binary(max_size=60), max_size=4).map(
        lambda parts: ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
    )
)
def test_any_text_is_denied(token: str) -> None:
    assert isinstance(check(token, KEYS, NOW), Denial)
