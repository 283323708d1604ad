"""The configuration: its defaults, its example file, and what it refuses."""

import json
import tomllib
from dataclasses import asdict, fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.relay.config.model import Config, is_read_on_the_way
from millrace.relay.config.parse import Problem, _Parser, parse

EXAMPLE = Path(__file__).parents[4] / "deploy" / "millrace.example.toml"
SECRET = "s" * 32


def config(text: str = "", *overrides: str) -> Config:
    parsed = parse(text, overrides)
    assert isinstance(parsed, Config), parsed
    return parsed


def problems(text: str = "", *overrides: str) -> dict[str, Problem]:
    parsed = parse(text, overrides)
    assert isinstance(parsed, tuple), "expected problems"
    return {problem.key: problem for problem in parsed}


def plain(tree: object) -> object:
    if isinstance(tree, tuple):
        return [plain(entry) for entry in tree]
    return {key: plain(entry) for key, entry in tree.items()} if hasattr(tree, "items") else tree


def test_empty_text_gives_the_defaults() -> None:
    assert config() == Config()


def test_example_file_says_every_key_and_its_default() -> None:
    example = tomllib.loads(EXAMPLE.read_text())
    assert config(EXAMPLE.read_text()) == Config()
    for section in fields(Config):
        default = getattr(Config(), section.name)
        # A Mapping default is not what asdict expects, so each section goes by its fields.
        assert example[section.name] == {f.name: plain(getattr(default, f.name)) for f in fields(default)}


def test_example_file_has_a_sentence_before_every_key() -> None:
    lines = EXAMPLE.read_text().splitlines()
    keys = [place for place, line in enumerate(lines) if "=" in line and not line.startswith("#")]
    assert len(keys) == sum(len(fields(getattr(Config(), section.name))) for section in fields(Config))
    assert [lines[place] for place in keys if not lines[place - 1].startswith("# ")] == []


def test_every_problem_is_said_at_once() -> None:
    found = problems(
        """
        colour = 1
        [http]
        porrt = 1
        port = true
        [media]
        bind = []
        steering = "magic"
        announced = ["203.0.113.5/2001:db8::1", "nowhere"]
        [admin]
        bind = "localhost"
        [arena]
        log_packets = 1000
        [[ice.servers]]
        username = 3
        """,
        "workers.count=65",
        "no-equals-sign",
    )
    assert set(found) == {
        "colour",
        "http.porrt",
        "http.port",
        "media.bind",
        "media.steering",
        "media.announced[0]",
        "media.announced[1]",
        "admin.bind",
        "arena.log_packets",
        "ice.servers[0].username",
        "ice.servers[0].urls",
        "workers.count",
        "--set",
    }
    assert str(found["http.porrt"]) == "http.porrt: found an unknown key, expected perhaps port"
    assert str(found["workers.count"]) == "workers.count: found 65, expected a whole number from 0 to 64"
    assert str(found["http.port"]) == "http.port: found true, expected a whole number from 0 to 65535"


def test_text_that_is_not_toml_is_one_problem() -> None:
    assert set(problems("[http")) == {"file"}


@pytest.mark.parametrize("section", ["http", "media"])
@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1"])
def test_server_without_keys_stays_on_loopback(section: str, address: str) -> None:
    public = f'[{section}]\nbind = ["127.0.0.1", "{address}"]\n'
    found = problems(public)
    assert set(found) == {f"{section}.bind"}
    assert "millrace keys" in found[f"{section}.bind"].expected
    assert config(public, f"auth.keys.demo={SECRET}").auth.keys == {"demo": SECRET}


def test_short_secret_is_refused_by_the_name_of_its_key_and_not_shown() -> None:
    found = problems(f'http.bind = ["0.0.0.0"]\nauth.keys = {{ good = "{SECRET}", demo = "hunter2" }}')
    assert set(found) == {"auth.keys.demo"}, "a public address is no second problem when there are keys, if bad ones"
    said = str(found["auth.keys.demo"])
    assert said.startswith("auth.keys.demo: found something else, expected a secret of at least 32 bytes")


def test_a_secret_is_as_long_as_its_bytes() -> None:
    assert config(f'auth.keys = {{ demo = "{"é" * 16}" }}').auth.keys
    assert "auth.keys.demo" in problems(f'auth.keys = {{ demo = "{"é" * 15}" }}')


RULES = "[auth]\nkeys.demo = " + f'"{SECRET}"\n'


@pytest.mark.parametrize(
    "pattern", ["lobby", "public-*", "*", "*-live", "a*b", "a.b_C-9", "a" * 256, "My *", "ü", "a/b", "[a-z]"]
)
def test_rooms_that_anybody_may_watch_are_names_and_patterns(pattern: str) -> None:
    assert config(RULES + f'public_rooms = ["{pattern}"]').auth.public_rooms == (pattern,)


@pytest.mark.parametrize("pattern", ["", "**", "a*b*", "a" * 257, "a\\n", ".."])
def test_a_pattern_that_no_room_has_is_refused(pattern: str) -> None:
    found = problems(RULES + f'public_rooms = ["lobby", "{pattern}"]')
    assert set(found) == {"auth.public_rooms[1]"}
    assert 'at most one "*"' in found["auth.public_rooms[1]"].expected


@pytest.mark.parametrize("network", ["10.0.0.0/8", "10.1.2.3", "2001:db8::/32", "::1", "0.0.0.0/0"])
def test_networks_that_may_publish_are_addresses_and_prefixes(network: str) -> None:
    assert config(RULES + f'publish_from = ["{network}"]').auth.publish_from == (network,)


@pytest.mark.parametrize("network", ["", "10.0.0.1/8", "10.0.0.0/33", "10.0.0", "fe80::1%eth0", "lan", "10.0.0.1-9"])
def test_a_network_that_is_none_is_refused(network: str) -> None:
    found = problems(RULES + f'publish_from = ["{network}"]')
    assert str(found["auth.publish_from[0]"]).startswith(f'auth.publish_from[0]: found "{network}", expected an IP')


@pytest.mark.parametrize(
    "url",
    ["https://app.example", "https://app.example:8443/millrace?box=1", "http://127.0.0.1:9000/", "http://[::1]/hook"],
)
def test_a_hook_is_a_url_and_opens_the_server_to_other_machines(url: str) -> None:
    made = config(f'http.bind = ["0.0.0.0"]\nauth.hook = "{url}"\nauth.public_rooms = ["lobby"]')
    assert (made.auth.hook, made.auth.hook_timeout_ms, made.is_open) == (url, 1_000, False)


@pytest.mark.parametrize(
    "url",
    ["app.example", "ftp://app.example", "https://", "https:///path", "https://a b", "https://app.example/#x",
     "https://me:hush@app.example", "https://app.example:99999", "https://[::1", "https://\u00fc.example"],
)  # fmt: skip
def test_a_hook_that_cannot_be_asked_is_refused(url: str) -> None:
    found = problems(f'auth.hook = "{url}"')
    assert "https://app.example/millrace" in found["auth.hook"].expected


@pytest.mark.parametrize("timeout", ["0", "49", "3001", '"1s"', "1.5"])
def test_a_hooks_deadline_has_bounds(timeout: str) -> None:
    found = problems(f'auth.hook = "https://app.example"\nauth.hook_timeout_ms = {timeout}')
    assert str(found["auth.hook_timeout_ms"]).endswith("expected a whole number from 50 to 3000")


def test_a_hooks_secret_is_never_shown() -> None:
    found = problems('auth.hook = "https://app.example"\nauth.hook_secret = "hüsh"')
    assert found["auth.hook_secret"].found == "something else"
    assert "hush" not in repr(config('auth.hook = "https://app.example"\nauth.hook_secret = "hush"'))


@pytest.mark.parametrize(
    ("url", "is_read"),
    [
        ("", False),
        ("https://app.example", False),
        ("http://127.0.0.1:9000/", False),
        ("http://[::1]/", False),
        ("http://localhost/", False),
        ("http://app.example/", True),
        ("http://10.0.0.1/", True),
    ],
)
def test_a_hook_over_http_on_another_machine_is_warned_of(url: str, is_read: bool) -> None:
    assert is_read_on_the_way(url) is is_read


@pytest.mark.parametrize(("key", "value"), [("public_rooms", '["lobby"]'), ("publish_from", '["10.0.0.0/8"]')])
def test_rules_for_who_has_no_token_are_refused_where_nobody_needs_one(key: str, value: str) -> None:
    assert "auth.keys and auth.hook are empty" in problems(f"auth.{key} = {value}")[f"auth.{key}"].expected


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        (f'{{ "" = "{SECRET}" }}', 'auth.keys.""'),
        ('{ "two words" = "hunter2" }', 'auth.keys."two words"'),
        (f"{{ demo = {'1' * 40} }}", "auth.keys.demo"),
        (f'{{ {SECRET} = "demo" }}', "auth.keys[0]"),
        (f'"{SECRET}"', "auth.keys"),
    ],
)
def test_a_bad_key_pair_is_named_and_no_secret_is_shown(keys: str, key: str) -> None:
    found = problems(f"auth.keys = {keys}")
    assert set(found) == {key}
    said = str(found[key])
    assert not any(secret in said for secret in (SECRET, "hunter2", "1" * 40))
    assert ("a name" in said) is (key == 'auth.keys.""')


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('ice.servers = [{ urls = ["stun:a"], credential = 271828 }]', "ice.servers[0].credential"),
        ('ice.servers = { urls = ["stun:a"], credential = "271828" }', "ice.servers"),
        ('ice.servers = "271828"', "ice.servers"),
        ('ice.servers = ["271828"]', "ice.servers[0]"),
        ('auth.keys.demo = "271828"', "--set auth.keys.demo.more"),
        ('auth = "271828"', "auth"),
        ('auth = ["271828"]', "auth"),
        ('auth.271828 = "demo"', "auth[0]"),
        ('auth.kays.demo = "271828"', "auth.kays"),
        (f'media.port = 1\n{"271828" * 6} = "demo"', "section[1]"),
        ('[auth]\n"two\\nlines" = "271828"', "auth[0]"),
    ],
)
def test_a_secret_in_the_wrong_place_is_not_shown(text: str, key: str) -> None:
    found = problems(text, *([f"{key.removeprefix('--set ')}=1"] if key.startswith("--set") else []))
    assert key in found
    assert "271828" not in "".join(map(str, found.values()))


@pytest.mark.parametrize(
    "override",
    [
        "auth.keys.me: 271828",
        'auth={keys={me="271828"}}',
        "ice.servers[0].credential 271828",
        "271828" * 6,
        "=" + "271828" * 6,
        f"auth.keys.{'271828' * 6}.more=1",
        f"log.level.{'271828' * 6}=1",
        f"log.{'271828' * 6}=1",
    ],
)
def test_a_secret_in_the_wrong_place_of_the_command_line_is_not_shown(override: str) -> None:
    said = "".join(map(str, problems('auth.keys = "x"\nlog.level = "info"', override).values()))
    assert "271828" not in said
    assert "--set" in said or "log[" in said


def test_what_was_found_cannot_forge_a_line() -> None:
    assert "\n" not in str(problems('log.level = "a\\nb"')["log.level"])
    assert list(problems('"two\\nlines" = 1')) == ['"two\\nlines"']


def test_secrets_stay_out_of_the_text_of_a_config() -> None:
    made = config(f'auth.keys = {{ demo = "{SECRET}" }}\n[[ice.servers]]\nurls = ["turn:t"]\ncredential = "{SECRET}"')
    assert SECRET not in repr(made)
    assert made.ice.servers[0].credential == SECRET


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('dtls.certificate = "a.pem"', "dtls.key"),
        ('dtls.key = "a.pem"', "dtls.certificate"),
        ("http.port = 6789", "admin.port"),
        ("media.tcp_port = 7880", "media.tcp_port"),
        ("media.tcp_port = 6789", "media.tcp_port"),
        ("media.tcp = 'on'\nmedia.port = 7880", "media.tcp_port"),
        ("limits.publications_per_worker = 1025", "limits.publications_per_worker"),
        ("limits.sessions_per_worker = 2049", "limits.sessions_per_worker"),
        ("workers.respawn_backoff_ms = 6000", "workers.respawn_backoff_ms"),
        ('runtime.directory = "/' + "a" * 80 + '"', "runtime.directory"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(text: str, key: str) -> None:
    assert set(problems(text)) == {key}


def test_overrides_win_and_take_plain_text() -> None:
    made = config("http.port = 1\nlog.level = 'error'", "http.port=2", "log.level=debug", 'http.bind=["::1"]')
    assert (made.http.port, made.log.level, made.http.bind) == (2, "debug", ("::1",))
    assert made.workers == Config().workers


@pytest.mark.parametrize("address", ["203.0.113.5", "2001:db8::1", "203.0.113.5/10.0.0.5"])
def test_announced_takes_an_address_or_a_pair(address: str) -> None:
    keys = f'auth.keys = {{ k = "{"s" * 32}" }}'
    for bound in ("0.0.0.0", "10.0.0.5"):
        made = config(f'{keys}\nmedia.bind = ["{bound}", "::"]\nmedia.announced = ["{address}"]')
        assert made.media.announced == (address,)


@pytest.mark.parametrize(
    ("bind", "address", "expected"),
    [
        ("0.0.0.0", "2a01:4f8:10:20::5", "an IPv4 address, or one of IPv6 in media.bind too"),
        ("::", "203.0.113.5", "an IPv6 address, or one of IPv4 in media.bind too"),
        ("10.0.0.5", "203.0.113.5/10.0.0.6", "10.0.0.6 in media.bind, for which it stands"),
        ("10.0.0.5", "10.0.0.5/203.0.113.5", "203.0.113.5 in media.bind, for which it stands"),
    ],
)
def test_an_announced_address_that_nobody_would_be_told_is_refused(bind: str, address: str, expected: str) -> None:
    text = f'auth.keys = {{ k = "{"s" * 32}" }}\nmedia.bind = ["{bind}"]\nmedia.announced = ["{address}"]'
    assert {key: problem.expected for key, problem in problems(text).items()} == {"media.announced[0]": expected}


@given(st.lists(st.one_of(st.text(), st.from_regex(r"(http|ice|arena|x)\.(port|bind|servers|y)(\.z)?=.*")), max_size=4))
def test_any_overrides_make_a_config_or_problems(overrides: list[str]) -> None:
    parsed = parse("", overrides)
    assert isinstance(parsed, Config) or (len(parsed) > 0 and all(map(str, parsed)))


json_like = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
)


@given(st.sampled_from([section.name for section in fields(Config)]), st.data())
def test_any_value_of_any_key_makes_a_config_or_problems(section: str, data: st.DataObject) -> None:
    key = data.draw(st.sampled_from([f.name for f in fields(getattr(Config(), section))]))
    value = data.draw(json_like)
    found = _Parser([])
    made = found.section(Config, {section: {key: value}}, "")
    assert found.problems or plain(getattr(getattr(made, section), key)) == plain_found(value)


def plain_found(value: object) -> object:
    return {key: plain_found(entry) for key, entry in value.items()} if isinstance(value, dict) else value


def test_config_is_deeply_frozen() -> None:
    with pytest.raises(TypeError):
        config("", f"auth.keys.demo={SECRET}").auth.keys["other"] = SECRET  # type: ignore[index]
    assert asdict(config().http)["port"] == 7880


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "null",
        "https://app.example",
        "https://app.example:8443",
        "http://app.example:443",
        "https://app.example.",
        "https://xn--bcher-kva.example",
        "https://my_host",
        "http://localhost:3000",
        "http://192.0.2.1",
        "http://[::1]:3000",
        "http://[2001:db8::1]",
        "capacitor://localhost",
        "chrome-extension://abcdefghijklmnop",
    ],
)
def test_an_origin_is_taken_as_a_browser_writes_it(origin: str) -> None:
    assert config(f'[http]\ncors_origins = ["{origin}"]').http.cors_origins == (origin,)


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "**",
        "app.example",
        "//app.example",
        "https://",
        "https://app.example/",
        "https://app.example/page",
        "https://app.example?x",
        "https://app.example#x",
        "https://App.example",
        "HTTPS://app.example",
        "https://*@a",
        "https://user@app.example",
        "https://*.example",
        "https://app.example:443",
        "http://app.example:80",
        "https://app.example:",
        "https://app.example:0443",
        "https://app.example:65536",
        "https://app..example",
        "https://.example",
        "https://b\u00fccher.example",
        "https://app.example\\\\@evil.example",
        "https://app%2eexample",
        "http://127.1",
        "http://010.0.0.1",
        "http://2130706433",
        "http://[2001:db8:0::1]",
        "http://[::1%25lo]",
        "http://[::1",
        "wss://app.example",
        "file:///index.html",
        "https://a.example,https://b.example",
        "https://a.example https://b.example",
        " https://a.example",
    ],
)
def test_an_origin_that_no_browser_would_send_is_a_problem(origin: str) -> None:
    problem = problems(f'[http]\ncors_origins = ["{origin}"]')["http.cors_origins[0]"]
    assert problem.found == json.dumps(origin.replace("\\\\", "\\"), ensure_ascii=False)
    assert problem.expected.startswith('an origin as browsers send it, such as "https://app.example", or "*": ')


@pytest.mark.parametrize("origin", ["https://site.example", "http://127.0.0.1:8000", "https://*.site.example", "*"])
def test_an_origin_may_frame_the_player(origin: str) -> None:
    assert config(f'[http]\nframe_ancestors = ["{origin}"]').http.frame_ancestors == (origin,)


@pytest.mark.parametrize(
    "origin",
    ["site.example", "https://site.example/", "https://a; script-src *", "https://a,b", "'none'", "data:", "https://*"],
)
def test_what_is_no_origin_does_not_get_into_a_policy(origin: str) -> None:
    assert "http.frame_ancestors[0]" in problems(f'[http]\nframe_ancestors = ["{origin}"]')


@pytest.mark.parametrize("url", ["stun:stun.example", "turns:[2001:db8::1]:443?transport=tcp"])
def test_an_ice_servers_url_is_a_stun_or_turn_url(url: str) -> None:
    assert config(f'[ice]\nservers = [{{ urls = ["{url}"] }}]').ice.servers[0].urls == (url,)


def test_an_ice_server_that_would_break_its_header_is_a_problem() -> None:
    for url in ("stun.example", "http://stun.example", "stun:", "stun:a>b", "stun:a\\r\\nSet-Cookie: b", "turn:a b"):
        assert "ice.servers[0].urls[0]" in problems(f'[ice]\nservers = [{{ urls = ["{url}"] }}]')
    found = problems('[ice]\nservers = [{ urls = ["stun:a"], username = "a\\nb", credential = "se\\ncret" }]')
    assert found.keys() == {"ice.servers[0].username", "ice.servers[0].credential"}
    assert "cret" not in str(found)


@pytest.mark.parametrize("path", ["", "/media", "/a/b-c.d_e~f"])
def test_a_public_path_is_taken(path: str) -> None:
    assert config(f'http.public_path = "{path}"').http.public_path == path


@pytest.mark.parametrize("path", ["media", "/media/", "/", "//media", "/a/../b", "/a b", "/a%20b", "/.", "/ä"])
def test_a_public_path_that_is_none_is_refused(path: str) -> None:
    assert set(problems(f'http.public_path = "{path}"')) == {"http.public_path"}


def test_a_turn_servers_secret_stands_alone_and_is_shown_nowhere() -> None:
    secret = "north-of-here"
    found = problems(f'[[ice.servers]]\nurls = ["turn:t"]\nsecret = "{secret}"\nusername = "u"')
    assert set(found) == {"ice.servers[0].secret"}
    assert secret not in str(found)
    assert secret not in repr(config(f'[[ice.servers]]\nurls = ["turn:t"]\nsecret = "{secret}"'))


@pytest.mark.parametrize(
    "text",
    [
        "media.port = 7880",
        "media.tcp = 'off'\nmedia.tcp_port = 7880",
        "media.tcp_port = 6789\nadmin.bind = '127.0.0.2'",
    ],
)
def test_media_may_have_the_number_of_another_port_where_that_takes_nothing_away(text: str) -> None:
    assert config(text)
