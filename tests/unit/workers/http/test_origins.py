import pytest

from millrace.workers.http.origins import Cors, Guard

HERE = "127.0.0.1:7880"
LISTED = "https://studio.example"


def status(guard: Guard, host: str | None, origin: str | None) -> int | None:
    refusal = guard.refusal(host, origin)
    return None if refusal is None else refusal.status


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        (HERE, None),
        (None, None),
        ("localhost:7880", "http://localhost:7880"),
        ("[::1]:7880", "http://[::1]:7880"),
        (HERE, "http://localhost:3000"),
        (HERE, LISTED),
        ("studio.example", LISTED),
        # Through a tunnel whose end listens on that address.
        ("192.168.1.5:8000", "http://192.168.1.5:8000"),
    ],
)
def test_programs_and_pages_of_this_machine_and_listed_pages_may_use_an_address_without_tokens(
    host: str | None, origin: str | None
) -> None:
    assert status(Guard(("*", LISTED), checks_host=True), host, origin) is None


@pytest.mark.parametrize(
    ("host", "origin", "expected"),
    [
        (HERE, "https://evil.example", 403),
        (HERE, "http://192.168.1.5:8000", 403),
        (HERE, "http://127.0.0.1.evil.example", 403),
        (HERE, "http://localhost.evil.example", 403),
        # A sandboxed frame of any page, or a file.
        (HERE, "null", 403),
        (HERE, "", 403),
        (HERE, "http://[", 403),
        ("evil.example:7880", None, 421),
        ("evil.example:7880", "http://evil.example:7880", 421),
        ("localhost.evil.example", None, 421),
        ("[", None, 421),
        ("", None, 421),
    ],
)
def test_a_page_of_another_site_may_not_use_an_address_without_tokens(
    host: str, origin: str | None, expected: int
) -> None:
    assert status(Guard(("*", LISTED), checks_host=True), host, origin) == expected


def test_an_address_that_others_reach_may_have_any_name_but_no_page_of_that_name() -> None:
    guard = Guard((), checks_host=False)
    assert status(guard, "relay.internal:6789", None) is None
    assert status(guard, "relay.internal:6789", "http://relay.internal:6789") == 403


def test_where_tokens_admit_any_page_may_read_the_answers() -> None:
    assert Cors(("*",), is_open=False).headers("https://any.example")["Access-Control-Allow-Origin"] == "*"


def test_where_no_token_is_asked_for_only_this_machines_pages_and_listed_ones_may_read_the_answers() -> None:
    cors = Cors(("*", LISTED), is_open=True)
    for origin in ("http://localhost:3000", LISTED):
        assert cors.headers(origin)["Access-Control-Allow-Origin"] == origin
        assert cors.preflight(origin, "POST")["Access-Control-Allow-Methods"] == "POST"
    assert cors.preflight("https://any.example", "POST") == {"Vary": "Origin"}
    assert cors.headers("http://[") == {"Vary": "Origin"}
    assert "Access-Control-Allow-Origin" not in Cors((), is_open=True).headers("http://localhost:3000")


@pytest.mark.parametrize(
    ("host", "origin", "is_other"),
    [
        ("relay.lan", None, False),
        ("relay.lan", "https://relay.lan", False),
        ("relay.lan:7880", "https://relay.lan:7880", False),
        # A name that was rebound to us looks like this, and has no certificate.
        ("relay.lan", "http://relay.lan", True),
        ("192.0.2.1:7880", "http://192.0.2.1:7880", False),
        ("relay.lan", "https://evil.example", True),
        ("relay.lan", "null", True),
        ("relay.lan", LISTED, False),
        ("relay.lan", "http://localhost:3000", False),
        (None, "https://None", True),
    ],
)
def test_a_page_of_another_site_is_told_from_ours(host: str | None, origin: str | None, is_other: bool) -> None:
    assert Guard((LISTED,), checks_host=False).is_other_site(host, origin) is is_other
