import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.workers.http.origins import Cors, Guard, named_host

HERE = "127.0.0.1:7880"
STRANGE_HOSTS = [
    "evil.example@127.0.0.1",
    "evil.example:80@127.0.0.1",
    "evil.example\\@127.0.0.1",
    "evil.example/@127.0.0.1",
    "evil.example#@127.0.0.1",
    "evil.example?@127.0.0.1",
    "127.0.0.1\\@evil.example",
    "127.0.0.1@evil.example",
    "@127.0.0.1",
    "127.0.0.1:",
    "127.0.0.1:x",
    "127.0.0.1:80:80",
    "127.0.0.1:65536",
    "127.0.0.1:-1",
    "127.0.0.1:\u0663",
    "127.0.0.1 evil.example",
    "127.0.0.1,evil.example",
    "127.0.0.1\tevil.example",
    "127.0.0.1/",
    "127%2e0.0.1",
    "\uff11\uff12\uff17.0.0.1",
    "local\u017fhost",
    "[::1",
    "::1",
    "[::1%lo]",
    "[::1%25lo]",
    "[::1]evil.example",
    "[::1].evil.example",
    "[127.0.0.1]",
    "[evil.example]",
    "[localhost]",
    " localhost",
    "localhost ",
]
STRANGE_NAMES = ["127.0.0.1.", "localhost.", "127.1", "0177.0.0.1", "2130706433"]
"""Hosts as they are written, but not this machine's: browsers send its addresses in another form."""
STRANGE_ORIGINS = [
    "http://evil.example\\@127.0.0.1",
    "http:/127.0.0.1",
    "http:127.0.0.1",
    "//127.0.0.1",
    "127.0.0.1",
    "http:\\\\127.0.0.1",
    "http:///127.0.0.1",
    "HTTP://127.0.0.1",
    "http://LOCALHOST",
    "http://127.0.0.1/",
    "http://127.0.0.1/path",
    "http://127.0.0.1 http://evil.example",
    "http://evil.example http://127.0.0.1",
    "http://127.0.0.1, http://evil.example",
    "ftp://127.0.0.1",
    "file://localhost",
    "javascript://localhost",
    "app://localhost",
    "null ",
    "NULL",
]
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
        *((host, None, 421) for host in (*STRANGE_HOSTS, *STRANGE_NAMES)),
        *((HERE, f"http://{host}", 403) for host in (*STRANGE_HOSTS, *STRANGE_NAMES)),
        *((HERE, origin, 403) for origin in STRANGE_ORIGINS),
        # Not even when both are alike.
        *((host, f"http://{host}", 421) for host in (*STRANGE_HOSTS, *STRANGE_NAMES)),
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


@pytest.mark.parametrize("origin", [*STRANGE_ORIGINS, *(f"http://{host}" for host in (*STRANGE_HOSTS, *STRANGE_NAMES))])
def test_a_strange_origin_may_not_read_the_answers_of_an_address_without_tokens(origin: str) -> None:
    assert "Access-Control-Allow-Origin" not in Cors(("*", LISTED), is_open=True).headers(origin)


@pytest.mark.parametrize("host", STRANGE_HOSTS)
def test_a_strange_host_makes_no_page_ours(host: str) -> None:
    assert Guard((LISTED,), checks_host=False).is_other_site(host, f"https://{host}")
    assert Guard((LISTED,), checks_host=False).is_other_site(HERE, f"https://{host}")


@pytest.mark.parametrize("host", ["LocalHost:7880", "[::1]", "[2001:DB8::1]:7880", "STUDIO.example"])
def test_the_letter_case_of_a_host_does_not_matter(host: str) -> None:
    assert status(Guard((LISTED,), checks_host=True), host, None) is None


@given(st.text(alphabet="127.0localhst:/@\\[]%?# evi", max_size=30))
def test_of_any_text_only_what_names_this_machine_and_nothing_else_is_trusted(text: str) -> None:
    if status(Guard((), checks_host=True), HERE, f"http://{text}") is None:
        name, _, port = text.rpartition(":") if text[-1:] != "]" and ":" in text else (text, "", "0")
        assert name in ("localhost", "[::1]") or name.startswith("127.")
        assert name.count(".") == (0 if name in ("localhost", "[::1]") else 3)
        assert port.isascii()
        assert port.isdigit()
        assert not set(name) & set("@\\/%?# ")


@pytest.mark.parametrize(
    ("target", "field", "named"),
    [
        ("/rooms", HERE, HERE),
        ("/http://evil.example/", HERE, HERE),
        ("*", HERE, HERE),
        ("http://evil.example/rooms", HERE, "evil.example"),
        ("HTTP://evil.example", HERE, "evil.example"),
        ("http://evil.example@127.0.0.1/rooms", HERE, "evil.example@127.0.0.1"),
        ("/rooms", None, None),
    ],
)
def test_a_whole_url_as_target_names_the_host(target: str, field: str | None, named: str | None) -> None:
    assert named_host(target, field) == named
