"""Why an offer, a fragment or an m-line is not taken, as a value that becomes an HTTP problem. Owns statuses and
reasons; must never know SDP or the client. Read next: `relay/sdp/offer.py` and `relay/negotiation/answering.py`, which
return refusals.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the client is told; the reason is stable, the detail is for a person."""

    status: int
    """400 malformed, 422 understood and not acceptable."""
    reason: str
    """A stable name such as `weak-fingerprint`, for the problem's type and for counters."""
    detail: str
    """One sentence that says what to change."""


class RefusedError(Exception):
    """Carries a Refusal up through one parser; never leaves the module whose entry point catches it."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


def malformed(reason: str, detail: str) -> RefusedError:
    """400: the text breaks the format."""
    return RefusedError(Refusal(400, reason, detail))


def unacceptable(reason: str, detail: str) -> RefusedError:
    """422: the text is understood, and asks for what the relay does not do."""
    return RefusedError(Refusal(422, reason, detail))
