"""Decides what a PATCH of a session means: trickled candidates, an ICE restart, or a precondition that does not hold
(RFC 9725 section 4.3). Owns the If-Match rules; must never know the engine or the tables. Read `relay/sdp/fragment.py`
next.
"""

from dataclasses import dataclass

from millrace.relay.contract.refusal import Refusal
from millrace.relay.sdp.fragment import Fragment, parse_fragment
from millrace.relay.sdp.lines import SdpLimits
from millrace.relay.session.sessions import Session


@dataclass(frozen=True, slots=True)
class Trickle:
    """Candidates, for which an ICE-lite side has no use: it learns addresses from checks (RFC 8445 section 2.5)."""


@dataclass(frozen=True, slots=True)
class Restart:
    """New credentials of the client."""

    fragment: Fragment
    remote_ufrag: str
    remote_pwd: str


@dataclass(frozen=True, slots=True)
class Repeated:
    """The restart that stands already: the answer to it was lost, and our credentials with it."""

    fragment: Fragment


def read_patch(
    session: Session, if_match: str | None, text: str, limits: SdpLimits
) -> Trickle | Restart | Repeated | Refusal:
    """What to do, or why not. A refusal leaves the session as it is."""
    if if_match is None:
        return Refusal(
            428, "precondition-required", "PATCH needs If-Match: the session's ETag, or * for an ICE restart."
        )
    fragment = parse_fragment(text, limits)
    if isinstance(fragment, Refusal):
        return fragment
    tags = [tag.strip() for tag in if_match.split(",")]
    renewed = fragment.restarts(session.remote_ufrag, session.remote_pwd)
    # RFC 9725 section 4.3.3 writes it with quotes in its example. No tag of ours is so short.
    if tags in (["*"], ['"*"']):
        if fragment.ufrag is None or fragment.pwd is None:
            return Trickle()
        if not renewed:
            # A client may trickle with the star and the new credentials, too, and a second answer would confuse it.
            is_restart = session.restarted_with is not None and not fragment.candidates
            return Repeated(fragment) if is_restart else Trickle()
        return Restart(fragment, fragment.ufrag, fragment.pwd)
    # The strong comparison of RFC 9110 section 8.8.3.2: a weak tag never matches.
    if session.etag not in tags:
        return Refusal(412, "precondition-failed", "If-Match names another ICE session than the current one.")
    if renewed:
        return Refusal(422, "restart-without-star", "New ICE credentials restart ICE, which needs If-Match: *.")
    return Trickle()
