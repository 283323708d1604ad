"""Offers for tests: real clients' from tests/vectors/sdp, and small ones to break."""

from pathlib import Path

from millrace.relay.config.model import LimitsConfig
from millrace.relay.contract.boot import CandidateAddress
from millrace.relay.negotiation.answering import Local, host_candidates
from millrace.relay.sdp.lines import SdpLimits

VECTORS = Path(__file__).parents[1] / "vectors" / "sdp"
NAMES = sorted(path.stem for path in VECTORS.glob("*.sdp"))
PUBLISHERS = [name for name in NAMES if not name.endswith(".viewer")]
_LIMITS = LimitsConfig()
LIMITS = SdpLimits(_LIMITS.sdp_bytes, _LIMITS.sdp_lines, _LIMITS.m_lines)
DIGEST = ":".join(["AB"] * 32)
LOCAL = Local(
    ufrag="00abcdEFGH",
    pwd="A" * 24,
    fingerprint=f"sha-256 {DIGEST}",
    candidates=host_candidates([CandidateAddress(each, 7882, each) for each in ("127.0.0.1", "::1")]),
    session_id=1234567890123456789,
)

SESSION = ("v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=group:BUNDLE 0 1")
TRANSPORT = ("a=ice-ufrag:abcd", f"a=ice-pwd:{'p' * 22}", f"a=fingerprint:sha-256 {DIGEST}", "a=setup:actpass")
AUDIO = ("m=audio 9 UDP/TLS/RTP/SAVPF 111", "c=IN IP4 0.0.0.0", *TRANSPORT, "a=mid:0", "a=sendonly", "a=rtcp-mux")
AUDIO_CODECS = ("a=rtpmap:111 opus/48000/2", "a=fmtp:111 minptime=10;useinbandfec=1")
VIDEO = ("m=video 9 UDP/TLS/RTP/SAVPF 96 97", "c=IN IP4 0.0.0.0", *TRANSPORT, "a=mid:1", "a=sendonly", "a=rtcp-mux")
VIDEO_CODECS = ("a=rtpmap:96 VP8/90000", "a=rtcp-fb:96 nack pli", "a=rtpmap:97 rtx/90000", "a=fmtp:97 apt=96")


def real(name: str) -> str:
    """A real offer, with the line ends it had on the wire."""
    return (VECTORS / f"{name}.sdp").read_text().replace("\n", "\r\n")


def text(*parts: tuple[str, ...]) -> str:
    """Lines as a body."""
    return "".join(f"{line}\r\n" for part in parts for line in part)


def both() -> str:
    """A small offer of audio and video."""
    return text(SESSION, AUDIO, AUDIO_CODECS, VIDEO, VIDEO_CODECS)


def video_only(*extra: str, formats: str = "96 97", codecs: tuple[str, ...] = VIDEO_CODECS) -> str:
    """A small offer of video, without a group."""
    head = (f"m=video 9 UDP/TLS/RTP/SAVPF {formats}", *VIDEO[1:])
    return text(SESSION[:-1], head, codecs, extra)
