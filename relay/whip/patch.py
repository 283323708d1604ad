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
    """Candidates. An ICE-lite side has no use for them: it learns addresses from checks (RFC 8445 section 2.5)."""


@dataclass(frozen=True, slots=True)
class Restart:
    """An ICE restart, with the client's new credentials."""

    fragment: Fragment
    remote_ufrag: str
    remote_pwd: str


@dataclass(frozen=True, slots=True)
class Repeated:
    """The last restart once more: its answer was lost, and our new credentials with it."""

    fragment: Fragment


def read_patch(
    session: Session, if_match: str | None, text: str, limits: SdpLimits
) -> Trickle | Restart | Repeated | Refusal:
    """Decides what the body and If-Match of a PATCH mean for this session; changes nothing."""
    if if_match is None:
        return Refusal(
            428, "precondition-required", "PATCH needs If-Match: the session's ETag, or * for an ICE restart."
        )
    fragment = parse_fragment(text, limits)
    if isinstance(fragment, Refusal):
        return fragment
    tags = [tag.strip() for tag in if_match.split(",")]
    renewed = fragment.restarts(session.remote_ufrag, session.remote_pwd)
    # The example of RFC 9725 section 4.3.3 has the star in quotes. No entity-tag of ours is so short.
    if tags in (["*"], ['"*"']):
        if fragment.ufrag is None or fragment.pwd is None:
            return Trickle()
        if not renewed:
            # A client may also trickle with the star and its new credentials; a second answer would confuse it.
            is_restart = session.restarted_with is not None and not fragment.candidates
            return Repeated(fragment) if is_restart else Trickle()
        return Restart(fragment, fragment.ufrag, fragment.pwd)
    # The strong comparison of RFC 9110 section 8.8.3.2: a weak tag never matches.
    if session.etag not in tags:
        return Refusal(412, "precondition-failed", "If-Match names another ICE session than the current one.")
    if renewed:
        return Refusal(422, "restart-without-star", "New ICE credentials restart ICE, which needs If-Match: *.")
    return Trickle()
