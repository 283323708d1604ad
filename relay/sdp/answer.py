"""Writes an answer (RFC 8866, RFC 9429 section 5.3) from what was decided. Owns the order of its lines; must never
decide what is taken. Read `relay/negotiation/answering.py` next, which decides; the client's own strings that come back
here were checked by `relay/sdp/media_section.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from millrace.relay.contract.commands import DtlsRole
from millrace.relay.sdp.extmap import ExtensionMap
from millrace.relay.sdp.lines import Direction
from millrace.relay.sdp.media_section import FEEDBACK, Format, MediaOffer
from millrace.relay.sdp.offer import Offer

DATA_PROFILES = frozenset({"UDP/DTLS/SCTP", "TCP/DTLS/SCTP"})
"""Profiles of data channels (RFC 8841), which never open here."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One of our addresses, a host candidate (RFC 8839 section 5.1)."""

    address: str
    port: int
    foundation: str
    priority: int
    protocol: Literal["udp", "tcp"] = "udp"

    def line(self) -> str:
        """Without a= and without the line end."""
        line = f"candidate:{self.foundation} 1 {self.protocol} {self.priority} {self.address} {self.port} typ host"
        # RFC 6544 section 4.5: the client connects to us.
        return f"{line} tcptype passive" if self.protocol == "tcp" else line


@dataclass(frozen=True, slots=True)
class Local:
    """Our side of ICE and DTLS."""

    ufrag: str
    pwd: str
    fingerprint: str
    """The text after `a=fingerprint:`."""
    candidates: tuple[Candidate, ...]
    """In the order in which they are written; ffmpeg only looks at the first."""
    session_id: int
    """For the o= line (RFC 8866 section 5.2): below 2**63."""


@dataclass(frozen=True, slots=True)
class OutgoingStream:
    """The stream that a viewer will receive in an m-line, as the answer names it."""

    ssrc: int
    rtx_ssrc: int | None
    cname: str
    track: str


@dataclass(frozen=True, slots=True)
class Section:
    """An m-line that is taken."""

    media: MediaOffer
    direction: Direction
    formats: tuple[Format, ...]
    """The codecs, each followed by its repair."""
    feedback: frozenset[str]
    """The offered feedback that we take."""
    extensions: tuple[ExtensionMap, ...]
    """As offered; mirrored when written."""
    rids: tuple[str, ...] = ()
    stream: OutgoingStream | None = None


def write(offer: Offer, local: Local, sections: Sequence[Section]) -> str:
    """The answer's text. M-lines of the offer that have no section are rejected (RFC 3264 section 6)."""
    section_by_position = {section.media.position: section for section in sections}
    default = local.candidates[0].address
    lines = ["v=0", f"o=- {local.session_id} 1 IN {_family(default)} {default}", "s=-", "t=0 0"]
    if offer.bundle is not None:
        lines.append(f"a=group:BUNDLE {' '.join(section.media.mid or '' for section in sections)}")
    lines += ["a=ice-lite", "a=ice-options:trickle ice2"]
    if offer.extmap_allow_mixed:
        lines.append("a=extmap-allow-mixed")
    lines.append("a=msid-semantic: WMS *")
    for media in offer.media:
        section = section_by_position.get(media.position)
        if section is None:
            lines += _rejected(media)
            continue
        lines += _accepted(section, offer.remote.role, local)
        if section is sections[0]:
            # The rest of the bundle shares the first one's (RFC 8843 section 10.1.3).
            lines += [f"a={candidate.line()}" for candidate in local.candidates] + ["a=end-of-candidates"]
    return "\r\n".join(lines) + "\r\n"


def completed(offer: Offer, sections: Sequence[Section]) -> tuple[Section, ...]:
    """The sections in the order of the BUNDLE group, the first of which carries the transport. If that m-line is not
    taken, it stays alive without media: Chromium with bundlePolicy max-bundle fails on an answer that rejects it.
    """
    if not offer.bundle:
        return tuple(sections)
    section_by_mid = {section.media.mid: section for section in sections}
    tagged = next(media for media in offer.media if media.mid == offer.bundle[0])
    if tagged.alive and (tagged.formats or tagged.protocol in DATA_PROFILES):
        placeholder = Section(tagged, Direction.INACTIVE, tagged.formats[:1], frozenset(), ())
        section_by_mid.setdefault(tagged.mid, placeholder)
    return tuple(section_by_mid[mid] for mid in offer.bundle if mid in section_by_mid)


def _family(address: str) -> str:
    return "IP6" if ":" in address else "IP4"


def _rejected(media: MediaOffer) -> list[str]:
    lines = [f"m={media.token} 0 {media.protocol} {media.formats_text}", "c=IN IP4 0.0.0.0", "a=inactive"]
    return lines if media.mid is None else [*lines, f"a=mid:{media.mid}"]


def _accepted(section: Section, role: DtlsRole, local: Local) -> list[str]:
    media = section.media
    formats = section.formats
    default = local.candidates[0]
    numbers = " ".join(str(line.payload_type) for line in formats)
    lines = [
        f"m={media.token} {default.port} {media.protocol} {numbers or media.formats_text}",
        f"c=IN {_family(default.address)} {default.address}",
        f"a=ice-ufrag:{local.ufrag}",
        f"a=ice-pwd:{local.pwd}",
        f"a=fingerprint:{local.fingerprint}",
        f"a=setup:{'active' if role is DtlsRole.CLIENT else 'passive'}",
    ]
    if media.mid is not None:
        lines.append(f"a=mid:{media.mid}")
    if media.protocol in DATA_PROFILES:
        return [*lines, "a=sctp-port:5000"]
    lines += [f"a={section.direction}", "a=rtcp-mux"]
    if media.rtcp_mux_only:
        # RFC 9725 section 4.4 wants it in answers, RFC 8858 section 4.3 does not. Clients that offer it understand it.
        lines.append("a=rtcp-mux-only")
    if media.rtcp_rsize:
        lines.append("a=rtcp-rsize")
    lines += [_extension(extension) for extension in section.extensions]
    for line in formats:
        lines += _format(line, section.feedback)
    lines += [f"a=rid:{rid} recv" for rid in section.rids]
    if media.streams.is_simulcast and section.rids:
        lines.append(f"a=simulcast:recv {';'.join(section.rids)}")
    return lines + _stream(section)


def _extension(offered: ExtensionMap) -> str:
    mirrored = offered.mirrored()
    suffix = f"/{mirrored.direction}" if mirrored.direction else ""
    return f"a=extmap:{mirrored.id}{suffix} {mirrored.uri}"


def _format(line: Format, feedback: frozenset[str]) -> list[str]:
    lines = [f"a=rtpmap:{line.payload_type} {line.encoding}"]
    if line.name.lower() != "rtx":
        taken = (value for value in FEEDBACK if value in feedback and value in line.feedback)
        lines += [f"a=rtcp-fb:{line.payload_type} {value}" for value in taken]
    # What begins with sprop- tells of the sender's own stream (RFC 6184 section 8.1, RFC 7587 section 6.1).
    parameters = [text for text in line.parameters.split(";") if not text.lstrip().lower().startswith("sprop-")]
    if text := ";".join(parameters).strip():
        lines.append(f"a=fmtp:{line.payload_type} {text}")
    return lines


def _stream(section: Section) -> list[str]:
    """The lines that tell a viewer, before any packet, which stream is this m-line's (RFC 8830, RFC 5576)."""
    stream = section.stream
    if stream is None:
        return []
    lines = [f"a=msid:{stream.cname} {stream.track}"]
    ssrcs = [stream.ssrc]
    if stream.rtx_ssrc is not None:
        ssrcs.append(stream.rtx_ssrc)
        lines.append(f"a=ssrc-group:FID {stream.ssrc} {stream.rtx_ssrc}")
    return lines + [f"a=ssrc:{ssrc} cname:{stream.cname}" for ssrc in ssrcs]
