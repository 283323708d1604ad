"""Text to `Config`, or every problem at once. Driven by the dataclasses of `relay/config/model.py`, so no key is named
here but in checks that concern several keys, or secrets; must never open a file. Read next: `relay/config/rules.py`.
"""

import json
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from difflib import get_close_matches
from ipaddress import ip_address
from operator import attrgetter
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from millrace.relay.config.model import Config, is_loopback
from millrace.relay.config.rules import Rule


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where, what was found, what was expected."""

    key: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.key}: found {self.found}, expected {self.expected}"


def parse(text: str = "", overrides: Sequence[str] = ()) -> Config | tuple[Problem, ...]:
    """Makes the configuration from TOML and `section.key=value` overrides, whose values are TOML or else plain text."""
    config, problems = parse_all(text, overrides)
    return problems or config


def parse_all(text: str = "", overrides: Sequence[str] = ()) -> tuple[Config, tuple[Problem, ...]]:
    """Makes a configuration in spite of problems, which stand beside it: a key with a problem has its default."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return Config(), (Problem("file", str(error), "TOML (https://toml.io)"),)
    parser = _Parser([])
    for each in overrides:
        parser.override(tree, each)
    config = parser.section(Config, tree, "")
    assert isinstance(config, Config), "a section with a problem is built from its defaults"
    refused = {problem.key for problem in parser.problems}
    parser.problems += (problem for problem in contradictions(config, refused) if problem.key not in refused)
    return config, tuple(parser.problems)


def secrets_in(overrides: Sequence[str]) -> tuple[str, ...]:
    """Returns the keys of overrides that set a secret, such as `auth.keys`; no name below them, as that may be one."""
    named = []
    for each in overrides:
        tree: dict[str, Any] = {}
        _Parser([]).override(tree, each)
        if _holds_secret(Config, tree):
            named.append(".".join(each.partition("=")[0].strip().split(".")[:2]))
    return tuple(dict.fromkeys(named))


def contradictions(config: Config, refused: Collection[str] = ()) -> Iterator[Problem]:
    """Yields problems that concern several keys. `refused` keys have their defaults in place of a wrong value."""
    if config.is_open and not any(key.startswith("auth.keys") for key in refused):
        binds = {"http.bind": config.http.bind, "media.bind": config.media.bind, "admin.bind": (config.admin.bind,)}
        for key, addresses in binds.items():
            for address in addresses:
                if not is_loopback(address):
                    expected = (
                        "loopback addresses while auth.keys and auth.hook are empty; `millrace keys` makes a key pair"
                    )
                    yield Problem(key, show(address), expected)
    if config.is_open and not any(key.startswith("auth") for key in refused):
        for key in ("auth.public_rooms", "auth.publish_from"):
            if value := attrgetter(key)(config):
                expected = "an empty list while auth.keys and auth.hook are empty, as nobody needs a token then"
                yield Problem(key, show(value), expected)
    yield from _never_told(config)
    for place, server in enumerate(config.ice.servers):
        if server.secret and (server.username or server.credential):
            expected = "no username and no credential beside it, as each client gets one of its own"
            yield Problem(f"ice.servers[{place}].secret", "something else", expected)
    pairs = {"http": (config.http.certificate, config.http.key), "dtls": (config.dtls.certificate, config.dtls.key)}
    for section, (certificate, key) in pairs.items():
        if bool(certificate) != bool(key):
            missing = f"{section}.key" if certificate else f"{section}.certificate"
            yield Problem(missing, "nothing", "a PEM file, as the other half is given")
    if config.http.port == config.admin.port != 0:
        yield Problem("admin.port", str(config.admin.port), "another port than http.port")
    yield from _tcp_taken(config)
    for key, limit_key in _NO_MORE_THAN.items():
        value, limit = attrgetter(key, limit_key)(config)
        if value > limit:
            yield Problem(key, str(value), f"at most {limit_key}, which is {limit}")


def _tcp_taken(config: Config) -> Iterator[Problem]:
    """Yields a TCP port for media that HTTP or the administration needs, where it was asked for."""
    media = config.media
    port = media.tcp_port or (media.port if media.tcp == "on" else 0)
    if media.tcp == "off" or not port:
        return
    for key, others, taken in (
        ("http.port", config.http.bind, config.http.port),
        ("admin.port", (config.admin.bind,), config.admin.port),
    ):
        bound = {ip_address(address) for address in (*media.bind, *others)}
        is_shared = len(bound) < len({*media.bind}) + len({*others}) or any(each.is_unspecified for each in bound)
        if taken == port and is_shared:
            yield Problem("media.tcp_port", str(media.tcp_port), f"another port than {key}")


def _never_told(config: Config) -> Iterator[Problem]:
    """Yields announced addresses that stand in for none that can be bound."""
    bound = [ip_address(address) for address in config.media.bind]
    for place, entry in enumerate(config.media.announced):
        public, _, local = entry.partition("/")
        version = ip_address(public).version
        if not any(address.version == version for address in bound):
            expected = f"an IPv{10 - version} address, or one of IPv{version} in media.bind too"
            yield Problem(f"media.announced[{place}]", show(entry), expected)
            continue
        stands_for_all = any(address.is_unspecified and address.version == version for address in bound)
        if local and not stands_for_all and ip_address(local) not in bound:
            yield Problem(f"media.announced[{place}]", show(entry), f"{local} in media.bind, for which it stands")


_NO_MORE_THAN = {
    "limits.sessions_per_worker": "arena.sessions_per_slot",
    "limits.publications_per_worker": "arena.logs_per_slot",
    "workers.respawn_backoff_ms": "workers.respawn_backoff_limit_ms",
}
_BARE_NAME = re.compile(r"[A-Za-z0-9_-]+")
_LONGEST_NAME = 31
"""A longer name may be a secret that stands where its name should. It is not shown: its position is."""
_MAY_HAVE_SECRET = re.compile("auth|credential", re.IGNORECASE)
_REFUSED: Any = object()
"""Stands for a value for which a problem was noted."""


@dataclass(slots=True)
class _Parser:
    problems: list[Problem]

    def refuse(self, key: str, found: str, expected: str) -> Any:
        self.problems.append(Problem(key, found, expected))
        return _REFUSED

    def override(self, tree: dict[str, Any], override: str) -> None:
        name, equals, text = override.partition("=")
        *path, last = name.strip().split(".")
        if not equals or not path or not all((*path, last)):
            is_shown = len(override) <= _LONGEST_NAME and not _MAY_HAVE_SECRET.search(override)
            found = show(override) if is_shown else "something else, which may have a secret"
            self.refuse("--set", found, "section.key=value")
            return
        for place, step in enumerate(path):
            below = tree.setdefault(step, {})
            if not isinstance(below, dict):
                # The rest of the name may be a secret.
                shown = [each if len(each) <= _LONGEST_NAME else "..." for each in name.strip().split(".")]
                self.refuse(f"--set {'.'.join(shown)}", "something else", f"a table at {shown[place]}")
                return
            tree = below
        try:
            tree[last] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            tree[last] = text

    def section(self, kind: type[Any], found: object, key: str) -> Any:
        if not isinstance(found, dict):
            return self.refuse(key, _kind(found), "a table")
        hints = get_type_hints(kind, include_extras=True)
        for place, name in enumerate(found):
            if name not in hints:
                self._refuse_unknown(key, place, name, hints)
        values = {
            name: self.value(hint, found[name], f"{key}.{name}" if key else name, ())
            for name, hint in hints.items()
            if name in found
        }
        required = [name for name in _required(kind) if values.get(name, _REFUSED) is _REFUSED]
        for name in required:
            if name not in found:
                self.refuse(f"{key}.{name}", "nothing", "a value, as it has no default")
        if required:
            return _REFUSED
        return kind(**{name: value for name, value in values.items() if value is not _REFUSED})

    def _refuse_unknown(self, section: str, place: int, name: str, hints: Mapping[str, Any]) -> None:
        near = get_close_matches(name, hints, 1)
        # Where secrets may stand, a name that is like no key may be a secret whose table was forgotten.
        is_shown = len(name) <= _LONGEST_NAME and (near or not any(map(_has_secret, hints.values())))
        if is_shown:
            key = f"{section}.{_name(name)}" if section else _name(name)
        else:
            key = f"{section or 'section'}[{place}]"
        self.refuse(key, "an unknown key", f"perhaps {near[0]}" if near else "one of " + ", ".join(hints))

    def value(self, hint: Any, found: object, key: str, rules: tuple[Rule, ...]) -> Any:
        """Checks one value of the type `hint` against that type's rules and `rules`, which come from around it."""
        if get_origin(hint) is Annotated:
            inner, *around = get_args(hint)
            return self.value(inner, found, key, (*around, *rules))
        if is_dataclass(hint):
            assert isinstance(hint, type), "hints are types"
            return self.section(hint, found, key)
        if get_origin(hint) is tuple:
            value = self._list(get_args(hint)[0], found, key)
        elif get_origin(hint) is Mapping:
            value = self._table(get_args(hint), found, key)
        elif get_origin(hint) is Literal:
            choices = get_args(hint)
            value = found if found in choices else self.refuse(key, show(found), "one of " + ", ".join(choices))
        else:
            value = self._scalar(hint, found, key, rules)
        return value if value is _REFUSED else self._ruled(value, key, rules)

    def _ruled(self, value: Any, key: str, rules: tuple[Rule, ...]) -> Any:
        for rule in rules:
            if not rule.accepts(value):
                return self.refuse(key, _found(value, rules), rule.expected)
        return value

    def _list(self, hint: Any, found: object, key: str) -> Any:
        if not isinstance(found, list):
            return self.refuse(key, _kind(found) if is_dataclass(hint) else show(found), "a list")
        values = tuple(self.value(hint, entry, f"{key}[{place}]", ()) for place, entry in enumerate(found))
        return _REFUSED if any(value is _REFUSED for value in values) else values

    def _table(self, hints: tuple[Any, ...], found: object, key: str) -> Any:
        if not isinstance(found, dict):
            return self.refuse(key, "something else", "a table of texts")
        name_hint, hint = hints
        values = {}
        for place, (name, entry) in enumerate(found.items()):
            entry_key = f"{key}[{place}]" if len(name) > _LONGEST_NAME else f"{key}.{_name(name)}"
            values[self.value(name_hint, name, entry_key, ())] = self.value(hint, entry, entry_key, ())
        is_refused = _REFUSED in values or any(value is _REFUSED for value in values.values())
        return _REFUSED if is_refused else MappingProxyType(values)

    def _scalar(self, hint: type, found: object, key: str, rules: tuple[Rule, ...]) -> Any:
        # A bool is an int in Python, but `true` is not a number in TOML.
        if type(found) is hint:
            return found
        names = {int: "a whole number", bool: "true or false", str: "a text"}
        return self.refuse(key, _found(found, rules), rules[0].expected if rules else names[hint])


def _required(kind: type[Any]) -> list[str]:
    return [each.name for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING]


def _has_secret(hint: Any) -> bool:
    return any((isinstance(each, Rule) and each.secret) or _has_secret(each) for each in get_args(hint))


def _holds_secret(hint: Any, found: Any) -> bool:
    """True when this value, or one within it, is a secret that is not empty."""
    if get_origin(hint) is Annotated:
        inner, *rules = get_args(hint)
        is_secret = any(isinstance(rule, Rule) and rule.secret for rule in rules)
        return (is_secret and bool(found)) or _holds_secret(inner, found)
    if is_dataclass(hint) and isinstance(found, dict):
        hints = get_type_hints(hint, include_extras=True)
        return any(_holds_secret(hints[name], value) for name, value in found.items() if name in hints)
    if get_origin(hint) is tuple and isinstance(found, list):
        return any(_holds_secret(get_args(hint)[0], value) for value in found)
    if get_origin(hint) is Mapping and isinstance(found, dict):
        return any(_holds_secret(get_args(hint)[1], value) for value in found.values())
    return False


def _found(value: object, rules: tuple[Rule, ...]) -> str:
    return "something else" if any(rule.secret for rule in rules) else show(value)


def _kind(value: object) -> str:
    """The type of a value that stands where a section should; the value itself may have secrets."""
    names = {str: "a text", list: "a list", dict: "a table", int: "a number", float: "a number"}
    return names.get(type(value), "something else")


def _name(name: str) -> str:
    """The name of an entry as TOML writes it."""
    return name if _BARE_NAME.fullmatch(name) else show(name)


def show(value: object) -> str:
    """A value as it might stand in the file, at most 80 characters. A table is not shown, as it may have secrets."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, (list, tuple)):
        text = "[" + ", ".join(map(show, value)) + "]"
    else:
        text = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."
