"""The syntax of SDP's lines (RFC 8866), and of the attribute values that more than one reader needs: ICE, candidates,
tokens, directions. Owns what is malformed; must never decide what is acceptable. Read `relay/sdp/offer.py` next.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from millrace.relay.contract.refusal import malformed


@dataclass(frozen=True, slots=True)
class SdpLimits:
    """Bounds of a body, past which it is refused before it is parsed: the `[limits]` of the same names."""

    sdp_bytes: int
    sdp_lines: int
    m_lines: int


class Direction(StrEnum):
    """Who sends (RFC 8866 section 6.7), from the writer's point of view."""

    SENDRECV = "sendrecv"
    SENDONLY = "sendonly"
    RECVONLY = "recvonly"
    INACTIVE = "inactive"

    def mirrored(self) -> "Direction":
        """The same flow from the other side's point of view."""
        return _MIRRORED[self]


_MIRRORED = {
    Direction.SENDRECV: Direction.SENDRECV,
    Direction.SENDONLY: Direction.RECVONLY,
    Direction.RECVONLY: Direction.SENDONLY,
    Direction.INACTIVE: Direction.INACTIVE,
}

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_TOKEN = re.compile(r"[!#-'*+\-.0-9A-Z^-~]{1,64}")
"""RFC 8866 section 9, at most 64 characters: some tokens come back in every packet."""
_ICE_CHARS = re.compile(r"[A-Za-z0-9+/]{1,256}")
_NUMBER = re.compile(r"[0-9]{1,10}")
_CANDIDATE = re.compile(
    r"[A-Za-z0-9+/]{1,64} [0-9]{1,5} [!#-'*+\-.0-9A-Z^-~]{1,32} [0-9]{1,10} "
    r"[^ ]{1,256} [0-9]{1,5} typ [a-z0-9-]{1,32}( .*)?"
)


def lines(text: str, limits: SdpLimits) -> Iterator[tuple[str, str]]:
    """(type letter, value) of each line; ends are CRLF or LF, blank lines are passed over."""
    # Characters first: cheap, and never more than the bytes they encode to.
    if len(text) > limits.sdp_bytes or len(text.encode("utf-8", "surrogatepass")) > limits.sdp_bytes:
        raise malformed("sdp-too-large", f"The body is over {limits.sdp_bytes} bytes.")
    if text.count("\n") > limits.sdp_lines:
        raise malformed("too-many-lines", f"The body has more than {limits.sdp_lines} lines.")
    text = text.replace("\r\n", "\n")
    if _CONTROL.search(text):
        raise malformed("control-character", "The body has a control character that is no line end.")
    return _split(text)


def _split(text: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line:
            continue
        if len(line) < 2 or line[1] != "=" or not ("a" <= line[0] <= "z"):
            raise malformed("not-sdp", f"Line {number} does not look like `a=...`.")
        yield line[0], line[2:]


def attribute(value: str) -> tuple[str, str | None]:
    """`name:value` or `name` of an a= line; values keep no outer blanks."""
    name, colon, rest = value.partition(":")
    return name.strip(), rest.strip() if colon else None


def token(text: str) -> str | None:
    """The text when it is a token of at most 64 characters; else None."""
    return text if _TOKEN.fullmatch(text) else None


def number(text: str, top: int) -> int | None:
    """The value of plain ASCII digits when it is 0 to `top`; else None."""
    if not _NUMBER.fullmatch(text):
        return None
    value = int(text)
    return value if value <= top else None


def ice_ufrag(value: str | None) -> str:
    """RFC 8839 section 5.4: 4 to 256 ice-chars."""
    if value is None or not _ICE_CHARS.fullmatch(value) or len(value) < 4:
        raise malformed("bad-ice-ufrag", "a=ice-ufrag must be 4 to 256 letters, digits, + or /.")
    return value


def ice_pwd(value: str | None) -> str:
    """RFC 8839 section 5.4: 22 to 256 ice-chars."""
    if value is None or not _ICE_CHARS.fullmatch(value) or len(value) < 22:
        raise malformed("bad-ice-pwd", "a=ice-pwd must be 22 to 256 letters, digits, + or /.")
    return value


def check_candidate(value: str | None) -> None:
    """RFC 8839 section 5.1. An ICE-lite side needs no candidate, so only the syntax is looked at."""
    if value is None or not _CANDIDATE.fullmatch(value):
        raise malformed("bad-candidate", "a=candidate does not follow RFC 8839 section 5.1.")
