"""Access tokens of LiveKit's shape: an HS256 JWT (RFC 7519) whose `video` claim says what its bearer may do in a room.
Owns what makes a token valid; must never read a clock or keep a token. Read `relay/access/admission.py` next, which
asks for grants.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from jwt.types import Options

from millrace.relay.config.names import is_name
from millrace.relay.contract.commands import MediaKind

MAX_TOKEN_CHARS = 8192
"""A longer token is refused. A LiveKit token has about 400 characters; HTTP servers take headers of 8 KiB."""
SOURCE_KINDS = {
    "microphone": MediaKind.AUDIO,
    "screen_share_audio": MediaKind.AUDIO,
    "camera": MediaKind.VIDEO,
    "screen_share": MediaKind.VIDEO,
}
"""The kind of each of LiveKit's sources. An offer tells kinds and no sources, so a grant of a source admits its kind.
"""
LEEWAY_SECONDS = 60.0
"""A token is taken so long before `nbf` and after `exp`, as the issuer's clock may differ from ours (RFC 7519 sections
4.1.4 and 4.1.5). It is the leeway of LiveKit's own server, whose tokens these are.
"""
_ONLY_SIGNATURE: Options = {
    "verify_signature": True,
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}
"""The library's own checks of times read the system's clock."""


NOT_OURS = frozenset({"no-token", "malformed-token", "wrong-algorithm", "unknown-key"})
"""Reasons of `check` for a token that no key of ours has to do with. Somebody else may know it."""


@dataclass(frozen=True, slots=True)
class Denial:
    """Why a token is refused."""

    status: int
    """401 when the token is not valid, 403 when it does not grant enough."""
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Grant:
    """What a valid token allows."""

    identity: str
    room: str
    """Empty grants no room."""
    room_join: bool
    can_publish: bool
    can_subscribe: bool
    sources: tuple[str, ...] | None = ()
    """The sources that may be published, in lower case. Empty grants every source; None stands for a claim that cannot
    be read, which grants none.
    """

    def publish_denial(self, room: str) -> Denial | None:
        """Why the bearer may not publish in the room; None when it may."""
        if (denial := self.join_denial(room)) is not None:
            return denial
        if self.sources is None:
            return Denial(403, "may-not-publish", "The token's `canPublishSources` must be a list of names.")
        return None if self.can_publish else Denial(403, "may-not-publish", "The token has canPublish false.")

    def subscribe_denial(self, room: str) -> Denial | None:
        """Why the bearer may not watch the room; None when it may."""
        if (denial := self.join_denial(room)) is not None:
            return denial
        return None if self.can_subscribe else Denial(403, "may-not-subscribe", "The token has canSubscribe false.")

    def join_denial(self, room: str) -> Denial | None:
        """Why the bearer may not join the room; None when it may."""
        if not self.room_join:
            return Denial(403, "may-not-join", "The token lacks roomJoin.")
        return None if self.room and room == self.room else Denial(403, "other-room", "The token is for another room.")


def check(
    token: str | None,
    keys: Mapping[str, str],
    now: float,
    leeway: float = LEEWAY_SECONDS,
    opened_at: float | None = None,
) -> Grant | Denial:
    """The grant of a token signed with one of `keys` (secret by name), at Unix time `now`. For a session that was
    `opened_at` a Unix time, the token has to have been valid then: it may have expired since, and a clock that was set
    back does not refuse it.
    """
    if not token:
        return Denial(401, "no-token", "Send `Authorization: Bearer <token>`.")
    if len(token) > MAX_TOKEN_CHARS:
        return Denial(401, "malformed-token", f"The token is over {MAX_TOKEN_CHARS} characters.")
    try:
        header = jwt.get_unverified_header(token)
        unchecked = jwt.decode(token, options={"verify_signature": False})
    # Recursion: thousands of nested brackets fit into the limit.
    except (jwt.PyJWTError, ValueError, RecursionError):
        return Denial(401, "malformed-token", "The token is no JWT.")
    if header.get("alg") != "HS256":
        return Denial(401, "wrong-algorithm", "The token must be signed with HS256.")
    issuer = unchecked.get("iss")
    secret = keys.get(issuer) if isinstance(issuer, str) else None
    if secret is None:
        return Denial(401, "unknown-key", "No key of this server has the name in `iss`.")
    try:
        claims = jwt.decode(token, secret, algorithms=["HS256"], options=_ONLY_SIGNATURE)
    except (jwt.PyJWTError, ValueError, RecursionError):
        return Denial(401, "bad-signature", "The token is not signed with the secret of its key.")
    return _times_denial(claims, now, leeway, opened_at) or _grant(claims)


def read_sources(claim: object) -> tuple[str, ...] | None:
    """The names of a list of sources, as in `Grant.sources`."""
    if claim is None:
        return ()
    if not isinstance(claim, list) or not all(isinstance(source, str) for source in claim):
        return None
    # LiveKit, too, reads the names without regard to case.
    return tuple(source.lower() for source in claim)


def make_token(  # noqa: PLR0913 - one for each claim
    key: str,
    secret: str,
    *,
    identity: str,
    room: str,
    expires_at: float,
    can_publish: bool = True,
    can_subscribe: bool = True,
    not_before: float | None = None,
) -> str:
    """Makes a token that `check` accepts, for `millrace token` and for tests. Times are Unix seconds."""
    video = {"room": room, "roomJoin": True, "canPublish": can_publish, "canSubscribe": can_subscribe}
    claims: dict[str, Any] = {"iss": key, "sub": identity, "exp": int(expires_at), "video": video}
    if not_before is not None:
        claims["nbf"] = int(not_before)
    return jwt.encode(claims, secret, algorithm="HS256")


def _times_denial(claims: dict[str, Any], now: float, leeway: float, opened_at: float | None) -> Denial | None:
    """RFC 7519 sections 4.1.4 and 4.1.5. A token without `exp` is refused."""
    expires_at, not_before = claims.get("exp"), claims.get("nbf", 0)
    if expires_at is None or not _is_time(expires_at) or not _is_time(not_before):
        return Denial(401, "malformed-token", "The token needs `exp`, in seconds since 1970; `nbf` likewise.")
    at = now if opened_at is None else min(now, opened_at)
    if at >= expires_at + leeway:
        return Denial(401, "expired", f"The token expired {_span(at - expires_at)} ago by this server's clock.")
    if opened_at is None and now < not_before - leeway:
        wait = _span(not_before - now)
        # The cause is always a clock, so the text says by how much.
        return Denial(401, "not-yet-valid", f"The token is not valid for another {wait} by this server's clock.")
    return None


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def _is_time(value: object) -> bool:
    # Bounded, as JSON has infinity and numbers of thousands of digits.
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12


def _grant(claims: dict[str, Any]) -> Grant | Denial:
    identity, video = claims.get("sub"), claims.get("video")
    if not isinstance(identity, str) or not is_name(identity):
        return Denial(
            401, "malformed-token", "The token needs the identity in `sub`: 1 to 256 characters, none a control."
        )
    if not isinstance(video, dict):
        return Denial(403, "may-not-join", "The token has no `video` claim.")
    room = video.get("room", "")
    return Grant(
        identity=identity,
        room=room if isinstance(room, str) else "",
        room_join=video.get("roomJoin") is True,
        # As with LiveKit, whoever may join may do what no claim forbids.
        can_publish=video.get("canPublish", True) is True,
        can_subscribe=video.get("canSubscribe", True) is True,
        sources=read_sources(video.get("canPublishSources")),
    )
