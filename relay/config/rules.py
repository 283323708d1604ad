"""What a single value of the configuration has to hold, beyond its type. Owns what each rule expects, in words; must
never know the key that it is for. Read next: `relay/config/parse.py`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

from millrace.relay.config.names import NAME_EXPECTED, is_room_pattern

MAX_SLOTS = 64
"""Workers at most: a track log has the set of interested slots in one 64-bit word."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One expectation, in words and as a test."""

    expected: str
    accepts: Callable[[Any], bool]
    secret: bool = False
    """The value found is never shown."""


def within(low: int, high: int) -> Rule:
    """A number from `low` to `high`, both included."""
    return Rule(f"a whole number from {low} to {high}", lambda value: low <= value <= high)


def power_of_two(low: int, high: int) -> Rule:
    """A power of two: the arena's rings find their entries with a mask."""
    return Rule(f"a power of two from {low} to {high}", lambda value: low <= value <= high and value & (value - 1) == 0)


def _is_address(text: str) -> bool:
    try:
        return "%" not in str(ip_address(text))
    except ValueError:
        return False


def _is_specified(text: str) -> bool:
    return _is_address(text) and not ip_address(text).is_unspecified


def _is_network(text: str) -> bool:
    try:
        return "%" not in str(ip_network(text))
    except ValueError:
        return False


def _is_announced(text: str) -> bool:
    parts = text.split("/")
    if len(parts) > 2 or not all(map(_is_specified, parts)):
        return False
    return len({ip_address(part).version for part in parts}) == 1


_ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:(?P<port>[1-9][0-9]{0,4}))?"
)
"""An origin (RFC 6454 section 6.2) as browsers write it: in lower case, names in their ASCII form."""
_USUAL_PORTS = {"http": "80", "https": "443"}
_OF_NO_PAGE = frozenset({"about", "blob", "data", "file", "ftp", "ws", "wss"})
"""Schemes whose pages send another origin, or `null`."""


def _is_origin(text: str) -> bool:
    """True when a browser can send it."""
    found = _ORIGIN.fullmatch(text)
    if found is None or found["scheme"] in _OF_NO_PAGE or int(found["port"] or 0) > 65535:
        return False
    host, usual = found["host"], _USUAL_PORTS.get(found["scheme"])
    if usual is None:
        return True
    labels = host.removesuffix(".").split(".")
    if found["port"] == usual or not all(labels):
        return False
    if host.startswith("[") or labels[-1].isdigit():
        # Browsers write each address in one way.
        return _is_address(host.strip("[]")) and str(ip_address(host.strip("[]"))) == host.strip("[]")
    return True


_FRAME_ANCESTOR = re.compile(r"https?://(\*\.)?[a-z0-9-]+(\.[a-z0-9-]+)*(:[0-9]{1,5})?")
"""A host source of a Content-Security-Policy (CSP level 3, section 2.3.1) without a path."""
_ICE_URL = re.compile(r"(stuns?|turns?):[!#-;=?-~]+")
"""A STUN or TURN URL (RFC 7064, RFC 7065) without a character that would end it in a `Link` header."""


def _is_hook(text: str) -> bool:
    try:
        url = urlsplit(text)
        return bool(url.hostname) and url.port != 0 and "@" not in url.netloc
    except ValueError:
        return False


_HOOK_URL = re.compile(r"https?://[!-~]+")

ABSOLUTE_OR_EMPTY = Rule("an absolute path, or nothing", lambda path: not path or path.startswith("/"))
PUBLIC_PATH = Rule(
    'a path such as "/media" without a slash at its end, or nothing',
    lambda path: re.fullmatch(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9_.~-]+)*", path) is not None,
)
"""Of characters that stand in a URL as they are (RFC 3986 section 2.3)."""
IP_ADDRESS = Rule('an IP address such as "127.0.0.1", "::1" or "0.0.0.0"', _is_address)
NETWORK = Rule('an IP address or a network such as "192.168.7.0/24", with no bits behind its length', _is_network)
NON_EMPTY = Rule("a list with at least one entry and no entry twice", lambda value: 0 < len(value) == len(set(value)))
ANNOUNCED = Rule('an IP address such as "203.0.113.5", or "public/local" of one family', _is_announced)
ORIGIN = Rule(
    'an origin as browsers send it, such as "https://app.example", or "*": in lower case, without a path, a slash at '
    "the end, a wildcard in the name, or the scheme's usual port",
    lambda text: text in ("*", "null") or _is_origin(text),
)
FRAME_ANCESTOR = Rule(
    'a web origin such as "https://site.example" or "https://*.site.example", or "*"',
    lambda text: text == "*" or _FRAME_ANCESTOR.fullmatch(text) is not None,
)
HOOK_URL = Rule(
    'a URL such as "https://app.example/millrace", without a user or a fragment, or nothing',
    lambda text: not text or (_HOOK_URL.fullmatch(text) is not None and "#" not in text and _is_hook(text)),
)
ICE_URL = Rule(
    'a STUN or TURN URL, such as "turn:turn.example:3478?transport=udp"',
    lambda text: _ICE_URL.fullmatch(text) is not None,
)
ROOM_PATTERN = Rule(
    f'a room\'s name ({NAME_EXPECTED}), with at most one "*" for any characters',
    is_room_pattern,
)
VISIBLE = Rule("a text of visible ASCII characters", lambda text: text.isascii() and text.isprintable())
VISIBLE_SECRET = replace(VISIBLE, secret=True)
KEY_NAME = Rule("a name of at least one character", bool)
SECRET = Rule(
    "a secret of at least 32 bytes (RFC 7518 section 3.2); `millrace keys` makes a pair",
    lambda secret: len(secret.encode()) >= 32,
    secret=True,
)
