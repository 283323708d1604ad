"""Trickled candidates and ICE restarts (RFC 8840, RFC 9725 section 4.3): reads a fragment, writes the restart's answer.
Owns both formats; must never know sessions or entity-tags. Read `relay/whip/patch.py` next, which decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from millrace.relay.contract.refusal import Refusal, RefusedError, malformed
from millrace.relay.sdp.answer import Local
from millrace.relay.sdp.lines import SdpLimits, attribute, check_candidate, ice_pwd, ice_ufrag, lines, token


@dataclass(frozen=True, slots=True)
class Fragment:
    """What a PATCH carries. Of candidates only the number is kept, as an ICE-lite side has no use for them."""

    ufrag: str | None
    pwd: str | None
    """Both or neither."""
    media: tuple[tuple[str, str], ...]
    """(audio or video, mid) of the fragment's m-lines."""
    candidates: int
    end_of_candidates: bool

    def restarts(self, ufrag: str, pwd: str) -> bool:
        """True when the fragment's credentials are not those of the session (RFC 9725 section 4.3.3)."""
        return self.ufrag is not None and (self.ufrag, self.pwd) != (ufrag, pwd)


def parse_fragment(text: str, limits: SdpLimits) -> Fragment | Refusal:
    """The fragment, or the first reason against it."""
    try:
        return _read(text, limits)
    except RefusedError as refused:
        return refused.refusal


def restart_answer(fragment: Fragment, mids: Sequence[str], local: Local) -> str:
    """The body of the 200 that answers a restart; `mids` are those of the m-lines that the session's answer took.

    It names one candidate, the likeliest, as the example of RFC 9725 section 4.3.3 does; none has changed. The client
    of npm's whip-whep takes all of its own out, and makes no SDP of several new ones.
    """
    known = [(kind, mid) for kind, mid in fragment.media if mid in mids]
    kind, mid = known[0] if known else ("audio", mids[0])
    out = ["a=ice-lite", "a=ice-options:trickle ice2"]
    if any(mids):
        out.append(f"a=group:BUNDLE {' '.join(mids)}")
    # RFC 8840 section 9: the m-line only marks a place, so its port and format mean nothing.
    out.append(f"m={kind} 9 UDP/TLS/RTP/SAVPF 0")
    if mid:
        out.append(f"a=mid:{mid}")
    out += [f"a=ice-ufrag:{local.ufrag}", f"a=ice-pwd:{local.pwd}"]
    out += [f"a={local.candidates[0].line()}", "a=end-of-candidates"]
    return "\r\n".join(out) + "\r\n"


def _read(text: str, limits: SdpLimits) -> Fragment:
    ufrag: str | None = None
    pwd: str | None = None
    media: list[tuple[str, str]] = []
    candidates = 0
    end_of_candidates = False
    for letter, value in lines(text, limits):
        if letter == "m":
            if len(media) == limits.m_lines:
                raise malformed("too-many-m-lines", f"There are more than {limits.m_lines} m-lines.")
            kind = value.split(" ", 1)[0]
            media.append((kind if kind in ("audio", "video") else "audio", ""))
        if letter != "a":
            continue
        name, rest = attribute(value)
        match name:
            case "ice-ufrag":
                ufrag = _same(ufrag, ice_ufrag(rest))
            case "ice-pwd":
                pwd = _same(pwd, ice_pwd(rest))
            case "mid" if media:
                if token(rest or "") is None:
                    raise malformed("bad-mid", "a=mid must be one token of at most 64 characters.")
                media[-1] = (media[-1][0], rest or "")
            case "candidate":
                check_candidate(rest)
                candidates += 1
            case "end-of-candidates":
                end_of_candidates = True
            case _:
                pass
    if (ufrag is None) != (pwd is None):
        raise malformed("half-credentials", "a=ice-ufrag and a=ice-pwd come together.")
    if ufrag is None and not candidates and not end_of_candidates:
        raise malformed("empty-fragment", "The fragment has neither candidates nor ICE credentials.")
    return Fragment(ufrag, pwd, tuple(media), candidates, end_of_candidates)


def _same(before: str | None, now: str) -> str:
    if before not in (None, now):
        raise malformed("two-credentials", "The fragment has two different ICE credentials; there is one transport.")
    return now
