"""Which formats of an m-line are codecs that the relay forwards, and when one side's stream suits the other side's
decoder. Owns payload types and fmtp lines; must never know streams or sessions. Read `relay/negotiation/answering.py`
next, which chooses among what it finds.
"""

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from millrace.relay.contract.commands import Codec, CodecName, MediaKind
from millrace.relay.sdp.lines import number
from millrace.relay.sdp.media_section import Format, MediaOffer

_NAMES: dict[tuple[MediaKind, str], CodecName] = {
    (MediaKind.AUDIO, "opus"): CodecName.OPUS,
    (MediaKind.VIDEO, "vp8"): CodecName.VP8,
    (MediaKind.VIDEO, "vp9"): CodecName.VP9,
    (MediaKind.VIDEO, "h264"): CodecName.H264,
    (MediaKind.VIDEO, "av1"): CodecName.AV1,
    # Chromium's name for AV1 until 2022.
    (MediaKind.VIDEO, "av1x"): CodecName.AV1,
}
"""Encoding names (RFC 7587, 7741, 9628, 6184; AV1 RTP specification section 7)."""
_CLOCK_RATES = {MediaKind.AUDIO: 48000, MediaKind.VIDEO: 90000}
_MOST_CHANNELS = {MediaKind.AUDIO: 2, MediaKind.VIDEO: 1}
"""RFC 7587 section 7 demands 2 of Opus, but cameras write 1 and GStreamer none, and there is one kind of stream."""

RTCP_RANGE = range(64, 96)
"""Payload types that look like RTCP once the marker bit is set (RFC 5761 section 4)."""


@dataclass(frozen=True, slots=True)
class OfferedCodec:
    """A codec that the relay forwards, as a client numbers it."""

    codec: Codec
    format: Format
    repair: Format | None
    """The RTX format that repairs it (RFC 4588); None when the client offers none."""


class H264Profile(Enum):
    """The profiles that are forwarded (RFC 6184 section 8.1, table 5), and H.264's constrained high."""

    CONSTRAINED_BASELINE = 1
    BASELINE = 2
    MAIN = 3
    CONSTRAINED_HIGH = 4
    HIGH = 5


_H264_PATTERNS: tuple[tuple[int, int, int, H264Profile], ...] = (
    (0x42, 0b0100_1111, 0b0100_0000, H264Profile.CONSTRAINED_BASELINE),
    (0x4D, 0b1000_1111, 0b1000_0000, H264Profile.CONSTRAINED_BASELINE),
    (0x58, 0b1100_1111, 0b1100_0000, H264Profile.CONSTRAINED_BASELINE),
    (0x42, 0b0100_1111, 0b0000_0000, H264Profile.BASELINE),
    (0x58, 0b1100_1111, 0b1000_0000, H264Profile.BASELINE),
    (0x4D, 0b1010_1111, 0b0000_0000, H264Profile.MAIN),
    (0x64, 0b1111_1111, 0b0000_1100, H264Profile.CONSTRAINED_HIGH),
    (0x64, 0b1111_1111, 0b0000_0000, H264Profile.HIGH),
)
"""profile_idc; which bits of profile-iop count; their values; the profile."""

_SIMPLE = (H264Profile.CONSTRAINED_BASELINE, H264Profile.BASELINE)
_DECODED_BY: dict[H264Profile, tuple[H264Profile, ...]] = {
    H264Profile.CONSTRAINED_BASELINE: (*_SIMPLE, H264Profile.CONSTRAINED_HIGH, H264Profile.MAIN, H264Profile.HIGH),
    # No encoder that speaks RTP uses what constrained baseline leaves out (FMO, ASO), yet Chromium and ffmpeg offer
    # plain baseline and Firefox only the constrained one.
    H264Profile.BASELINE: (
        H264Profile.BASELINE,
        H264Profile.CONSTRAINED_BASELINE,
        H264Profile.CONSTRAINED_HIGH,
        H264Profile.MAIN,
        H264Profile.HIGH,
    ),
    H264Profile.MAIN: (H264Profile.MAIN, H264Profile.HIGH),
    H264Profile.CONSTRAINED_HIGH: (H264Profile.CONSTRAINED_HIGH, H264Profile.HIGH),
    H264Profile.HIGH: (H264Profile.HIGH,),
}
"""For the profile of a stream, those whose decoders play it, the nearest first."""

_FARTHEST = 10
"""More than any distance between profiles: how packets are made counts before them."""
PACKETIZATION_MODE = "packetization-mode"


def parameters(text: str) -> dict[str, str]:
    """The `key=value` pairs of an fmtp line, keys in lower case, the first of each."""
    pairs: dict[str, str] = {}
    for part in text.split(";"):
        key, _, value = part.strip().partition("=")
        pairs.setdefault(key.strip().lower(), value.strip())
    return pairs


def forwarded(media: MediaOffer) -> tuple[OfferedCodec, ...]:
    """The m-line's codecs that the relay forwards, in the client's order, each with its repair."""
    kind = media.kind
    if kind is None:
        return ()
    repair_by_payload_type: dict[int, Format] = {}
    for line in media.formats:
        if line.name.lower() == "rtx":
            apt = number(parameters(line.parameters).get("apt", ""), 127)
            if apt is not None and line.payload_type not in RTCP_RANGE:
                repair_by_payload_type.setdefault(apt, line)
    found: list[OfferedCodec] = []
    for line in media.formats:
        name = _NAMES.get((kind, line.name.lower()))
        if name is None or _misfit(kind, line) or not _is_forwarded(name, line.parameters):
            continue
        repair = repair_by_payload_type.get(line.payload_type)
        repair_payload_type = repair.payload_type if repair else None
        codec = Codec(name, line.payload_type, repair_payload_type, line.clock_rate)
        found.append(OfferedCodec(codec, line, repair))
    return tuple(found)


def described(kind: MediaKind, line: Format) -> str:
    """The format in words for a refusal. When the relay forwards its name, with what else may be the reason."""
    is_known = (kind, line.name.lower()) in _NAMES
    notes = "; ".join(text for text in (_misfit(kind, line), line.parameters.strip()) if text and is_known)
    return f"{line.name} ({notes})" if notes else line.name


def with_repair(codecs: tuple[OfferedCodec, ...]) -> tuple[Format, ...]:
    """The formats of an m-line that takes these codecs, each codec followed by its repair."""
    return tuple(line for offered in codecs for line in (offered.format, offered.repair) if line is not None)


@lru_cache(maxsize=1024)
def distance(name: CodecName, stream: str, decoder: str) -> int | None:
    """How far a decoder's fmtp line is from a stream's: 0 the same, more is worse, None cannot play it.

    Levels and other parameters are not compared: they bound a decoder's effort, and clients decode more than they
    declare.
    """
    have, want = parameters(stream), parameters(decoder)
    match name:
        case CodecName.H264:
            unpacks, decodes = _unpacking_distance(have, want), _decoding_distance(have, want)
            return None if unpacks is None or decodes is None else unpacks * _FARTHEST + decodes
        case CodecName.VP9:
            return 0 if have.get("profile-id", "0") == want.get("profile-id", "0") else None
        case CodecName.AV1:
            return 0 if have.get("profile", "0") == want.get("profile", "0") else None
        case CodecName.OPUS | CodecName.VP8:
            return 0


def differing_parameter(name: CodecName, stream: str, decoder: str) -> str:
    """The fmtp parameter for which `distance` is None; empty when it is not."""
    if distance(name, stream, decoder) is not None:
        return ""
    match name:
        case CodecName.H264:
            is_unpacked = _unpacking_distance(parameters(stream), parameters(decoder)) is not None
            return "profile-level-id" if is_unpacked else PACKETIZATION_MODE
        case CodecName.VP9:
            return "profile-id"
        case _:
            return "profile"


def h264_profile(pairs: dict[str, str]) -> H264Profile | None:
    """Reads profile-level-id; baseline when it is absent (RFC 6184 section 8.1). None for a profile that is not
    forwarded.
    """
    text = pairs.get("profile-level-id", "42000a")
    try:
        idc, iop, level = bytes.fromhex(text)
    except ValueError:
        return None
    for pattern_idc, mask, bits, profile in _H264_PATTERNS:
        if idc == pattern_idc and iop & mask == bits and level:
            return profile
    return None


def _unpacking_distance(have: dict[str, str], want: dict[str, str]) -> int | None:
    """How far the packets of an H264 stream are from those that a decoder says to take; None for too far.

    A decoder of mode 1 takes packets of mode 0. Who leaves the parameter out means 0 by RFC 6184 section 8.1, yet the
    depayloaders of clients that do (GStreamer, SIPSorcery, gateways) take both. Who says 0 in words may mean it.
    """
    sent, taken = have.get(PACKETIZATION_MODE, "0"), want.get(PACKETIZATION_MODE)
    if taken == "0" and sent != "0":
        return None
    return 0 if sent == (taken or "0") else 1


def _decoding_distance(have: dict[str, str], want: dict[str, str]) -> int | None:
    profile, decodes = h264_profile(have), h264_profile(want)
    if profile is None or decodes is None:
        return None
    if decodes in _DECODED_BY[profile]:
        return _DECODED_BY[profile].index(decodes)
    # By RFC 6184 section 8.1 who leaves it out decodes no more than level 1, 128 x 96 pixels. Nobody means that: such
    # clients have their decoder read the stream's own parameter sets.
    return None if "profile-level-id" in want else _FARTHEST - 1


def _is_forwarded(name: CodecName, text: str) -> bool:
    """H264 in packets of modes 0 and 1, in which the engine can find key frames; mode 2 interleaves pictures."""
    if name is not CodecName.H264:
        return True
    pairs = parameters(text)
    return pairs.get(PACKETIZATION_MODE, "0") in ("0", "1") and h264_profile(pairs) is not None


def _misfit(kind: MediaKind, line: Format) -> str:
    """Why a format is none that the relay forwards, whatever its name and parameters; empty when it may be one."""
    if line.clock_rate != _CLOCK_RATES[kind] or (line.channels or 1) > _MOST_CHANNELS[kind]:
        return f"as {line.encoding}"
    return f"as payload type {line.payload_type}, which RTCP has" if line.payload_type in RTCP_RANGE else ""
