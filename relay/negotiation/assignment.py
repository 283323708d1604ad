"""Whether a publisher's packets can be told apart. Owns the rule for payload types that several m-lines have; must
never know sessions. Read `relay/negotiation/answering.py` next, which asks, and the engine's `publication/streams.rs`,
which assigns the packets.

A packet belongs to the m-line that names its SSRC, or whose mid it carries, or that alone has its payload type (RFC
8843 section 9.2). So an m-line with neither SSRCs nor the mid extension keeps only the formats that no other one has.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from millrace.relay.contract.commands import ExtensionKind, MediaKind
from millrace.relay.contract.refusal import Refusal
from millrace.relay.negotiation.codecs import OfferedCodec
from millrace.relay.negotiation.encodings import offered_encodings
from millrace.relay.negotiation.extensions import select_from_publisher
from millrace.relay.sdp.media_section import MediaOffer


@dataclass(frozen=True, slots=True)
class Sent:
    """One m-line that a publisher sends."""

    media: MediaOffer
    kind: MediaKind
    position: int
    """Among the offer's m-lines of its kind that flow the same way."""
    codecs: tuple[OfferedCodec, ...]
    """At least one."""


def assignable(sent: Sequence[Sent]) -> list[Sent] | Refusal:
    """Returns the m-lines with the formats whose packets can be assigned; a refusal when one has no codec left."""
    users = Counter(number for one in sent for number in _payload_types(one))
    kept = []
    for one in sent:
        codecs = _told_apart(one, {number for number, count in users.items() if count > 1})
        if not codecs:
            shared = ", ".join(str(offered.format.payload_type) for offered in one.codecs)
            detail = (
                f"M-line {one.media.position + 1}, of {one.kind}, shares payload type {shared} with another, and "
                "nothing tells their packets apart: name their SSRCs (a=ssrc), offer the extension "
                "urn:ietf:params:rtp-hdrext:sdes:mid, or use other numbers (RFC 8843 section 10.1.2)."
            )
            return Refusal(422, "ambiguous-payload-type", detail)
        kept.append(replace(one, codecs=codecs))
    return kept


def _payload_types(one: Sent) -> set[int]:
    formats = (line for offered in one.codecs for line in (offered.format, offered.repair))
    return {line.payload_type for line in formats if line is not None}


def _told_apart(one: Sent, shared: set[int]) -> tuple[OfferedCodec, ...]:
    """The m-line's codecs, without those on shared numbers when nothing else names their streams."""
    extensions = select_from_publisher(one.media.extensions, one.kind, transport_cc=False, rids=False)
    if any(line.kind is ExtensionKind.MID for line in extensions):
        return one.codecs
    encodings = offered_encodings(one.media.streams, with_repair=True)
    names_media = all(encoding.ssrc is not None for encoding in encodings)
    names_repair = all(encoding.rtx_ssrc is not None for encoding in encodings)
    kept = (each for each in one.codecs if names_media or each.format.payload_type not in shared)
    return tuple(
        each
        if each.repair is None or names_repair or each.repair.payload_type not in shared
        # A client sends no repair that the answer does not have.
        else replace(each, repair=None, codec=replace(each.codec, rtx_payload_type=None))
        for each in kept
    )
