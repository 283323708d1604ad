"""One a=extmap line (RFC 8285), and the URIs of the RTP header extensions that are known. Owns their names on the wire;
must never choose among them. Read `relay/negotiation/extensions.py` next, which does.
"""

from dataclasses import dataclass

from millrace.relay.contract.commands import ExtensionKind
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
