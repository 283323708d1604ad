"""What is read of one m-line of an offer, and the attributes of ICE and DTLS that may stand there or above all m-lines.
Owns the check of each line by itself; must never compare m-lines. Read `relay/sdp/offer.py` next, which does.

A line about one format, extension or stream that is broken is passed over, and of two with the same number the first
counts: it may be of a format that nobody takes. What the transport rests on has to be right.
"""

import re
from dataclasses import dataclass, field

from millrace.relay.contract.commands import MediaKind
from millrace.relay.contract.refusal import malformed, unacceptable
from millrace.relay.sdp.extmap import PLACEHOLDER_IDS, ExtensionMap
from millrace.relay.sdp.lines import Direction, ice_pwd, ice_ufrag, number, token
from millrace.relay.sdp.stream_lines import OfferedStreams, StreamLines

FINGERPRINT_BYTES = {"sha-256": 32, "sha-384": 48, "sha-512": 64}
"""Digest lengths of the hashes that are accepted, the preferred one first. RFC 8122 section 5 also has weaker ones."""
MAX_FORMATS = 128
"""Formats in one m-line, past which the offer is refused: as many as there are payload types."""
MAX_FINGERPRINTS = 8
FEEDBACK = ("transport-cc", "goog-remb", "ccm fir", "nack", "nack pli")
"""The rtcp-fb values that the relay has a use for, in the order of answers."""
RTP_PROFILES = frozenset(["RTP/SAVPF", "RTP/SAVP", "RTP/AVPF", "RTP/AVP"]).union(
    f"{transport}/RTP/{profile}" for transport in ("UDP/TLS", "TCP/TLS", "TCP/DTLS") for profile in ("SAVPF", "SAVP")
)
"""RFC 9429 section 5.1.2: all are accepted, and come back as they were. What says DTLS-SRTP is the fingerprint, without
which there is no offer.
"""

_HEX_PAIRS = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){15,63}")
_ENCODING_NAME = re.compile(r"[A-Za-z0-9._-]{1,32}")
_VISIBLE = re.compile(r"[\x20-\x7e]{1,2048}")
_URI = re.compile(r"[\x21-\x7e]{1,256}")


@dataclass(frozen=True, slots=True)
class Format:
    """One payload type of an m-line that has a name."""

    payload_type: int
    name: str
    """As offered; compare without regard to case."""
    clock_rate: int
    channels: int | None
    """None when the offer does not say; it comes back as it was offered."""
    parameters: str
    """The fmtp line, empty without one."""
    feedback: frozenset[str]
    """Those in FEEDBACK, with those that the offer gives for all payload types."""

    @property
    def encoding(self) -> str:
        """The a=rtpmap line without the payload type (RFC 8866 section 6.6), in the client's own letter case: GStreamer
        compares it.
        """
        return f"{self.name}/{self.clock_rate}" + ("" if self.channels is None else f"/{self.channels}")


@dataclass(frozen=True, slots=True)
class MediaOffer:
    """One m-line."""

    position: int
    """Among all m-lines."""
    token: str
    """audio, video, application, ..."""
    port: int
    protocol: str
    formats_text: str
    """The formats as offered, for the answer to an m-line that is rejected."""
    alive: bool
    """Neither rejected by the client nor outside the BUNDLE group."""
    mid: str | None
    direction: Direction
    formats: tuple[Format, ...]
    extensions: tuple[ExtensionMap, ...]
    rtcp_mux_only: bool
    rtcp_rsize: bool
    streams: OfferedStreams

    @property
    def kind(self) -> MediaKind | None:
        """Audio or video; None for any other m-line."""
        return MediaKind(self.token) if self.token in ("audio", "video") else None


@dataclass(slots=True)
class TransportLines:
    """Attributes that may stand above all m-lines or in one."""

    ufrag: str | None = None
    pwd: str | None = None
    setup: str | None = None
    fingerprints: list[tuple[str, bytes]] = field(default_factory=list)
    direction: Direction | None = None

    def handle(self, name: str, value: str | None) -> None:
        """Reads one attribute; passes over an unknown one."""
        match name:
            case "ice-ufrag":
                self.ufrag = ice_ufrag(value)
            case "ice-pwd":
                self.pwd = ice_pwd(value)
            case "setup":
                self.setup = _setup(value)
            case "fingerprint":
                self._add_fingerprint(value or "")
            case "sendrecv" | "sendonly" | "recvonly" | "inactive":
                self.direction = Direction(name)
            case _:
                pass

    def _add_fingerprint(self, value: str) -> None:
        """RFC 8122 section 5."""
        name, _, digits = value.partition(" ")
        name, digits = name.lower(), digits.strip()
        if not _HEX_PAIRS.fullmatch(digits):
            raise malformed("bad-fingerprint", "a=fingerprint must be a hash name and pairs of hex digits.")
        digest = bytes.fromhex(digits.replace(":", ""))
        if FINGERPRINT_BYTES.get(name, len(digest)) != len(digest):
            raise malformed("bad-fingerprint", f"A {name} fingerprint has {FINGERPRINT_BYTES[name]} bytes.")
        # Weak and unknown hashes are kept, too: an offer with only those is told so, and a strong one beside them does.
        self.fingerprints.append((name, digest))
        if len(self.fingerprints) > MAX_FINGERPRINTS:
            raise malformed("too-many-fingerprints", f"There are more than {MAX_FINGERPRINTS} fingerprints.")


class MediaReader:
    """Collects the attributes of one m-line."""

    def __init__(self, position: int, value: str) -> None:
        parts = value.split(None, 3 + MAX_FORMATS)
        if (
            not 4 <= len(parts) <= 3 + MAX_FORMATS
            or token(parts[0]) is None
            or token(parts[2].replace("/", "-")) is None
        ):
            raise malformed("bad-m-line", "An m-line is `m=<media> <port> <profile> <format> ...`.")
        port = number(parts[1].partition("/")[0], 65535)
        formats = [part for part in parts[3:] if token(part) is not None]
        if port is None or not formats:
            raise malformed("bad-m-line", "An m-line's port or formats are not valid.")
        self.position = position
        self.token, self.port, self.protocol, self.formats = parts[0], port, parts[2], formats
        self.is_rtp = self.token in ("audio", "video")
        self.payload_types = self._payload_types() if self.is_rtp else []
        self.transport = TransportLines()
        self.bundle_only = False
        self.mid: str | None = None
        self.rtcp_mux = False
        self.rtcp_mux_only = False
        self.rtcp_rsize = False
        self.extmap_allow_mixed = False
        self.extensions: list[ExtensionMap] = []
        self._extension_ids: set[int] = set()
        self._maps: dict[int, tuple[str, int, int | None]] = {}
        self._parameters: dict[int, str] = {}
        self._feedback: dict[int | None, set[str]] = {}
        self.streams = StreamLines()

    @property
    def rejected(self) -> bool:
        """Port 0 is a rejection, but for a bundle-only m-line (RFC 8843 section 6)."""
        return self.port == 0 and not self.bundle_only

    def handle(self, name: str, value: str | None) -> None:
        """Reads one attribute."""
        match name:
            case "rtcp-mux":
                self.rtcp_mux = True
            case "rtcp-mux-only":
                self.rtcp_mux = self.rtcp_mux_only = True
            case "rtcp-rsize":
                self.rtcp_rsize = True
            case "bundle-only":
                self.bundle_only = True
            case "extmap-allow-mixed":
                self.extmap_allow_mixed = True
            case "mid":
                self._handle_mid(value or "")
            case "extmap":
                self._handle_extmap(value or "")
            case _ if self.is_rtp:
                self._handle_rtp(name, value or "")
            case _:
                self.transport.handle(name, value)

    def _handle_rtp(self, name: str, value: str) -> None:
        match name:
            case "rtpmap":
                self._handle_rtpmap(value)
            case "fmtp":
                self._handle_fmtp(value)
            case "rtcp-fb":
                self._handle_feedback(value)
            case "rid" | "simulcast" | "ssrc" | "ssrc-group":
                self.streams.handle(name, value)
            case _:
                self.transport.handle(name, value)

    def finish(self, session_direction: Direction | None, bundled: bool) -> MediaOffer:
        """The m-line as a value."""
        alive = bundled and not self.rejected
        if alive and self.is_rtp and self.protocol not in RTP_PROFILES:
            raise unacceptable("no-dtls", "An m-line's profile is not DTLS-SRTP, such as UDP/TLS/RTP/SAVPF.")
        return MediaOffer(
            position=self.position,
            token=self.token,
            port=self.port,
            protocol=self.protocol,
            formats_text=" ".join(self.formats),
            alive=alive,
            mid=self.mid,
            direction=self.transport.direction or session_direction or Direction.SENDRECV,
            formats=self._formats(),
            extensions=tuple(self.extensions),
            rtcp_mux_only=self.rtcp_mux_only,
            rtcp_rsize=self.rtcp_rsize,
            streams=self.streams.finish(),
        )

    def _formats(self) -> tuple[Format, ...]:
        """In the m-line's order, which is the client's preference."""
        for_all = frozenset(self._feedback.get(None, ()))
        return tuple(
            Format(
                payload_type,
                *self._maps[payload_type],
                self._parameters.get(payload_type, ""),
                for_all.union(self._feedback.get(payload_type, ())),
            )
            for payload_type in self.payload_types
            if payload_type in self._maps
        )

    def _payload_types(self) -> list[int]:
        found = (number(text, 127) for text in self.formats)
        return list(dict.fromkeys(payload_type for payload_type in found if payload_type is not None))

    def _handle_mid(self, value: str) -> None:
        if self.mid not in (None, value) or token(value) is None:
            raise malformed("bad-mid", "a=mid must be one token of at most 64 characters, once an m-line.")
        self.mid = value

    def _handle_extmap(self, value: str) -> None:
        """RFC 8285 section 8: `<id>[/<direction>] <uri> [attributes]`."""
        parts = value.split(None, 2)
        if len(parts) < 2 or not _URI.fullmatch(parts[1]):
            return
        id_text, slash, direction_text = parts[0].partition("/")
        extension_id = number(id_text, PLACEHOLDER_IDS[-1])
        if extension_id is None or (not 1 <= extension_id <= 255 and extension_id not in PLACEHOLDER_IDS):
            return
        if (slash and direction_text not in tuple(Direction)) or extension_id in self._extension_ids:
            return
        self._extension_ids.add(extension_id)
        self.extensions.append(ExtensionMap(extension_id, parts[1], Direction(direction_text) if slash else None))

    def _handle_rtpmap(self, value: str) -> None:
        """RFC 8866 section 6.6: `<pt> <name>/<clock>[/<channels>]`."""
        payload_text, _, rest = value.partition(" ")
        payload_type = number(payload_text, 127)
        name, _, rates = rest.strip().partition("/")
        clock_text, _, channels_text = rates.partition("/")
        clock_rate = number(clock_text, 4_294_967_295)
        if payload_type is not None and clock_rate is not None and _ENCODING_NAME.fullmatch(name):
            self._maps.setdefault(payload_type, (name, clock_rate, number(channels_text, 255) or None))

    def _handle_fmtp(self, value: str) -> None:
        payload_text, _, rest = value.partition(" ")
        payload_type, rest = number(payload_text, 127), rest.strip()
        if payload_type is not None and _VISIBLE.fullmatch(rest):
            self._parameters.setdefault(payload_type, rest)

    def _handle_feedback(self, value: str) -> None:
        """RFC 4585 section 4.2."""
        payload_text, _, rest = value.partition(" ")
        payload_type = None if payload_text == "*" else number(payload_text, 127)
        feedback = " ".join(rest.lower().split())
        if feedback in FEEDBACK and (payload_type is not None or payload_text == "*"):
            self._feedback.setdefault(payload_type, set()).add(feedback)


def _setup(value: str | None) -> str:
    """RFC 8842 section 5.2."""
    if value == "holdconn":
        raise unacceptable("setup-holdconn", "a=setup:holdconn asks for no connection.")
    if value not in ("actpass", "active", "passive"):
        raise malformed("bad-setup", "a=setup must be actpass, active or passive.")
    return value
