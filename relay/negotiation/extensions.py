"""Which RTP header extensions are known, by URI, and which of them go into an answer (RFC 8285).

Knows nothing of codecs or m-lines. `negotiation.py` asks it; the engine rewrites the ids it yields.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from millrace.relay.contract.commands import Extension, ExtensionKind, MediaKind
from millrace.relay.sdp.lines import Direction

KIND_BY_URI: dict[str, ExtensionKind] = {
    "urn:ietf:params:rtp-hdrext:sdes:mid": ExtensionKind.MID,
    "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id": ExtensionKind.RID,
    "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id": ExtensionKind.REPAIRED_RID,
    "urn:ietf:params:rtp-hdrext:ssrc-audio-level": ExtensionKind.AUDIO_LEVEL,
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01": ExtensionKind.TRANSPORT_CC,
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time": ExtensionKind.ABS_SEND_TIME,
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time": ExtensionKind.ABS_CAPTURE_TIME,
    "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay": ExtensionKind.PLAYOUT_DELAY,
    "urn:3gpp:video-orientation": ExtensionKind.VIDEO_ORIENTATION,
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension": (
        ExtensionKind.DEPENDENCY_DESCRIPTOR
    ),
    "http://www.webrtc.org/experiments/rtp-hdrext/video-content-type": ExtensionKind.VIDEO_CONTENT_TYPE,
    "http://www.webrtc.org/experiments/rtp-hdrext/color-space": ExtensionKind.COLOR_SPACE,
}

VIDEO_ONLY = frozenset(
    {
        ExtensionKind.RID,
        ExtensionKind.REPAIRED_RID,
        ExtensionKind.PLAYOUT_DELAY,
        ExtensionKind.VIDEO_ORIENTATION,
        ExtensionKind.DEPENDENCY_DESCRIPTOR,
        ExtensionKind.VIDEO_CONTENT_TYPE,
        ExtensionKind.COLOR_SPACE,
    }
)

NOT_FOR_VIEWERS = frozenset({ExtensionKind.RID, ExtensionKind.REPAIRED_RID, ExtensionKind.TRANSPORT_CC})
"""A viewer gets one encoding without a name, and no transport-wide sequence numbers: its bandwidth is not estimated."""

PLACEHOLDER_IDS = range(4096, 4352)
"""Offered when a client has more extensions than ids (RFC 8285 section 6); an answer would have to renumber them."""


@dataclass(frozen=True, slots=True)
class ExtensionMap:
    """One a=extmap line."""

    id: int
    uri: str
    direction: Direction | None
    """Of the suffix such as `/recvonly`, from the writer's point of view; None without a suffix."""

    @property
    def kind(self) -> ExtensionKind | None:
        """What it means, when that is known here."""
        return KIND_BY_URI.get(self.uri)

    def mirrored(self) -> "ExtensionMap":
        """The same line from the other side's point of view."""
        return ExtensionMap(self.id, self.uri, self.direction.mirrored() if self.direction else None)


def select_from_publisher(
    offered: Iterable[ExtensionMap], kind: MediaKind, *, transport_cc: bool, rids: bool
) -> tuple[ExtensionMap, ...]:
    """What a publisher may send us. transport-cc only goes with its feedback: without it the numbers are noise. Rids
    only when the offer names them: OBS sends some for its only encoding.
    """
    unwanted = set() if transport_cc else {ExtensionKind.TRANSPORT_CC}
    if not rids:
        unwanted |= {ExtensionKind.RID, ExtensionKind.REPAIRED_RID}
    return tuple(
        line
        for line in _selectable(offered, kind)
        if line.direction in (None, Direction.SENDRECV, Direction.SENDONLY) and line.kind not in unwanted
    )


def select_to_viewer(offered: Iterable[ExtensionMap], kind: MediaKind) -> tuple[ExtensionMap, ...]:
    """What we may send to a viewer."""
    return tuple(
        line
        for line in _selectable(offered, kind)
        if line.direction in (None, Direction.SENDRECV, Direction.RECVONLY) and line.kind not in NOT_FOR_VIEWERS
    )


def numbered(lines: Iterable[ExtensionMap]) -> tuple[Extension, ...]:
    """As the engine takes them."""
    return tuple(Extension(line.id, line.kind) for line in lines if line.kind is not None)


def _selectable(offered: Iterable[ExtensionMap], kind: MediaKind) -> list[ExtensionMap]:
    """The known ones, one of each meaning: the first."""
    first: dict[ExtensionKind, ExtensionMap] = {}
    for line in offered:
        meaning = line.kind
        if meaning is None or line.id in PLACEHOLDER_IDS:
            continue
        if kind is MediaKind.AUDIO and meaning in VIDEO_ONLY:
            continue
        first.setdefault(meaning, line)
    return list(first.values())
