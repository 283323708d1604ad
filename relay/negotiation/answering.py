"""Answers offers: what is taken from a publisher, what is sent to a viewer, and what is refused, with the reason. Owns
what the relay prefers; must never know rooms, tokens or workers. Read `relay/negotiation/codecs.py` next, for what can
be taken, and `relay/sdp/answer.py`, which writes the answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from millrace.relay.contract.boot import CandidateAddress
from millrace.relay.contract.commands import (
    Codec,
    CodecName,
    Extension,
    ExtensionKind,
    Format,
    MediaKind,
    TrackCodec,
)
from millrace.relay.contract.facts import PublicationHere, PublishedFormat
from millrace.relay.contract.refusal import Refusal
from millrace.relay.negotiation.assignment import Sent, assignable
from millrace.relay.negotiation.codecs import (
    OfferedCodec,
    described,
    differing_parameter,
    distance,
    forwarded,
    with_repair,
)
from millrace.relay.negotiation.encodings import OfferedEncoding, offered_encodings, taken_rids
from millrace.relay.negotiation.extensions import numbered, select_from_publisher, select_to_viewer
from millrace.relay.sdp import answer as writer
from millrace.relay.sdp.answer import Candidate, Local, OutgoingStream, Section
from millrace.relay.sdp.lines import Direction
from millrace.relay.sdp.media_section import MediaOffer
from millrace.relay.sdp.offer import Offer, Remote

__all__ = ["Candidate", "Local", "OfferedEncoding", "Refusal", "Remote"]

FROM_PUBLISHERS = {
    MediaKind.AUDIO: frozenset({"nack", "transport-cc"}),
    MediaKind.VIDEO: frozenset({"nack", "nack pli", "ccm fir", "transport-cc"}),
}
"""RTCP feedback that we send to publishers."""

FROM_VIEWERS = {
    MediaKind.AUDIO: frozenset({"nack"}),
    MediaKind.VIDEO: frozenset({"nack", "nack pli", "ccm fir", "goog-remb"}),
}
"""RTCP feedback that we accept from viewers."""

FORWARDED = {MediaKind.AUDIO: "Opus", MediaKind.VIDEO: "AV1, H264 with packetization-mode 0 or 1, VP8, VP9"}
"""What is forwarded, in words for a refusal."""

_NOWHERE = (1 << 30, 0)
"""The place of a codec that the publisher does not send."""
MAX_CODECS = 16
"""Codecs that one m-line of a publisher is answered with; Chromium offers 13. They are part of facts and records."""


@dataclass(frozen=True, slots=True)
class OfferedTrack:
    """One m-line that a publisher sends."""

    kind: MediaKind
    mid: str
    """Empty when the offer's only m-line has none."""
    position: int
    """Among the offer's m-lines of its kind that flow the same way."""
    codecs: tuple[TrackCodec, ...]
    """All that it may send, in the order of the answer; at least one."""
    format_parameters: tuple[str, ...]
    """The fmtp line of each."""
    encodings: tuple[OfferedEncoding, ...]
    """Lowest quality first, at most three."""
    extensions: tuple[Extension, ...]


@dataclass(frozen=True, slots=True)
class PublisherAnswer:
    """The answer to a publisher, and what its transport and publications are opened with."""

    sdp: str
    remote: Remote
    tracks: tuple[OfferedTrack, ...]
    mids: tuple[str, ...]
    """Of the m-lines that are taken, for `relay/sdp/fragment.py`'s answer to an ICE restart."""


@dataclass(frozen=True, slots=True)
class Receiver:
    """One m-line that a viewer receives."""

    kind: MediaKind
    mid: str
    position: int
    """Among the offer's m-lines of its kind that flow the same way."""
    ssrc: int
    rtx_ssrc: int | None
    codecs: tuple[tuple[Codec, str], ...]
    """With their fmtp lines, in the order of the answer."""
    extensions: tuple[Extension, ...]


@dataclass(frozen=True, slots=True)
class ViewerAnswer:
    """The answer to a viewer, and what its transport and subscriptions are opened with."""

    sdp: str
    remote: Remote
    receivers: tuple[Receiver, ...]
    mids: tuple[str, ...]
    lacking: tuple[tuple[MediaKind, CodecName], ...] = ()
    """For each m-line that is not taken, as it can play nothing that is sent: its kind, and the codec that it lacks."""


def host_candidates(addresses: Sequence[CandidateAddress]) -> tuple[Candidate, ...]:
    """Our addresses as candidates, the first preferred (RFC 8445 section 5.1.2.1). Those of TCP are below all others,
    as RFC 6544 section 4.2 has it: another type preference, and what a passive side has of the local one.
    """
    preference = {"udp": (126, 65_535), "tcp": (90, (4 << 13) | 8_191)}
    return tuple(
        Candidate(
            address=each.address,
            port=each.port,
            foundation=str(index + 1),
            priority=(preference[each.protocol][0] << 24) | ((preference[each.protocol][1] - index) << 8) | 255,
            protocol=each.protocol,
        )
        for index, each in enumerate(addresses)
    )


def published_kinds(offer: Offer) -> list[MediaKind]:
    """The kinds of the m-lines that a publisher sends, one for each."""
    return [kind for _, kind, _ in _flowing(offer, Direction.SENDONLY)]


def answer_publisher(offer: Offer, local: Local) -> PublisherAnswer | Refusal:
    """Takes every codec that the relay forwards, in the client's order (RFC 9429 section 5.3.1), as a client sends what
    its track is. All m-lines are taken or none: a publisher would not notice that half of them go nowhere (RFC 9725
    section 4.4).
    """
    if (outside := _sent_outside(offer)) is not None:
        return outside
    offered: list[Sent] = []
    for media, kind, position in _flowing(offer, Direction.SENDONLY):
        codecs = forwarded(media)[:MAX_CODECS]
        if not codecs:
            return _not_forwarded(media, kind)
        offered.append(Sent(media, kind, position, codecs))
    sent = assignable(offered)
    if isinstance(sent, Refusal):
        return sent
    sections = [_publisher_section(one.media, one.kind, one.codecs) for one in sent]
    tracks = [_track(section, one.codecs, one.kind, one.position) for section, one in zip(sections, sent, strict=True)]
    if not sections:
        return _nothing_taken(offer, "A publisher offers sendonly or sendrecv audio or video.", without_codec=False)
    taken = writer.completed(offer, sections)
    return PublisherAnswer(writer.write(offer, local, taken), offer.remote, tuple(tracks), _mids(taken))


def answer_viewer(
    offer: Offer,
    local: Local,
    streams: Sequence[tuple[int, int | None]],
    cname: str,
    publications: Sequence[PublicationHere],
) -> ViewerAnswer | Refusal:
    """Takes every codec of each m-line that both sides know, so that a publisher may come or change later. Those of the
    publication that exists already come first, above all the one in use. An m-line that can play none of them is not
    taken, and when no m-line is, the viewer is refused. `streams` has the SSRCs (media, RTX) for each of the offer's
    m-lines.
    """
    published = {(publication.kind, publication.position): publication for publication in publications}
    sections: list[Section] = []
    receivers: list[Receiver] = []
    rejected: list[tuple[MediaOffer, PublicationHere | None]] = []
    for media, kind, position in _flowing(offer, Direction.RECVONLY):
        publication = published.get((kind, position))
        codecs = _preferred(forwarded(media), publication)
        if not codecs:
            rejected.append((media, publication))
            continue
        ssrc, rtx_ssrc = streams[media.position]
        if all(offered.repair is None for offered in codecs):
            rtx_ssrc = None
        stream = OutgoingStream(ssrc, rtx_ssrc, cname, f"{kind}{position}")
        extensions = select_to_viewer(media.extensions, kind)
        sections.append(
            Section(media, Direction.SENDONLY, with_repair(codecs), FROM_VIEWERS[kind], extensions, stream=stream),
        )
        receivers.append(
            Receiver(
                kind,
                media.mid or "",
                position,
                ssrc,
                rtx_ssrc,
                tuple((offered.codec, offered.format.parameters) for offered in codecs),
                numbered(extensions),
            )
        )
    if not sections:
        expected = "A viewer offers recvonly or sendrecv audio or video."
        detail = " ".join(_lacking(media, publication) for media, publication in rejected)
        return _nothing_taken(offer, detail or expected, without_codec=bool(rejected))
    taken = writer.completed(offer, sections)
    lacking = tuple((publication.kind, publication.codec) for _, publication in rejected if publication is not None)
    return ViewerAnswer(writer.write(offer, local, taken), offer.remote, tuple(receivers), _mids(taken), lacking)


def codec_for(receiver: Receiver, sent: PublicationHere) -> Codec | None:
    """The publication's codec in use as the viewer numbers it; None when the viewer cannot play it."""
    return _nearest(receiver.codecs, sent)


def _nearest(codecs: tuple[tuple[Codec, str], ...], sent: PublicationHere | PublishedFormat) -> Codec | None:
    near = [
        (far, index, codec)
        for index, (codec, text) in enumerate(codecs)
        if (far := _distance(sent, codec.name, codec.clock_rate, text)) is not None
    ]
    return min(near)[2] if near else None


def formats_for(receiver: Receiver, publication: PublicationHere) -> tuple[Format, ...]:
    """Each payload type of the publisher's that the viewer can play; empty when the publisher has one codec."""
    return _playable(receiver.codecs, publication.formats)


@lru_cache(maxsize=256)
def _playable(codecs: tuple[tuple[Codec, str], ...], formats: tuple[PublishedFormat, ...]) -> tuple[Format, ...]:
    # Most viewers of a room have the same browser.
    found = ((known.payload_type, _nearest(codecs, known)) for known in formats)
    return tuple(Format(payload_type, codec) for payload_type, codec in found if codec is not None)


def _flowing(offer: Offer, direction: Direction) -> list[tuple[MediaOffer, MediaKind, int]]:
    """The living m-lines of audio and video that flow that way, each with its position among those of its kind."""
    counts = dict.fromkeys(MediaKind, 0)
    found = []
    for media in offer.media:
        kind = media.kind
        if kind is not None and media.alive and media.direction in (Direction.SENDRECV, direction):
            found.append((media, kind, counts[kind]))
            counts[kind] += 1
    return found


def _publisher_section(media: MediaOffer, kind: MediaKind, codecs: tuple[OfferedCodec, ...]) -> Section:
    """Takes transport-cc only as a pair: the extension that numbers packets and the feedback that reports them."""
    numbered_by_client = any("transport-cc" in offered.format.feedback for offered in codecs)
    extensions = select_from_publisher(
        media.extensions, kind, transport_cc=numbered_by_client, rids=bool(media.streams.rids)
    )
    feedback = FROM_PUBLISHERS[kind]
    if all(line.kind is not ExtensionKind.TRANSPORT_CC for line in extensions):
        feedback -= {"transport-cc"}
    rids = tuple(rid.name for rid in taken_rids(media.streams))
    return Section(media, Direction.RECVONLY, with_repair(codecs), feedback, extensions, rids)


def _track(section: Section, codecs: tuple[OfferedCodec, ...], kind: MediaKind, position: int) -> OfferedTrack:
    def track_codec(offered: OfferedCodec) -> TrackCodec:
        answered = section.feedback & offered.format.feedback
        return TrackCodec(offered.codec, nack="nack" in answered, pli="nack pli" in answered, fir="ccm fir" in answered)

    return OfferedTrack(
        kind=kind,
        mid=section.media.mid or "",
        position=position,
        codecs=tuple(track_codec(offered) for offered in codecs),
        format_parameters=tuple(offered.format.parameters for offered in codecs),
        encodings=offered_encodings(
            section.media.streams, with_repair=any(offered.repair is not None for offered in codecs)
        ),
        extensions=numbered(section.extensions),
    )


def _preferred(codecs: tuple[OfferedCodec, ...], publication: PublicationHere | None) -> tuple[OfferedCodec, ...]:
    """The publication's codec in use first, then the others that it may send, nearest matches before others, then the
    rest; empty when the viewer lacks all of the publication's.
    """
    if publication is None:
        return codecs
    sent: tuple[PublicationHere | PublishedFormat, ...] = (publication, *publication.formats)

    def place(offered: OfferedCodec) -> tuple[int, int]:
        name, clock_rate, text = offered.codec.name, offered.codec.clock_rate, offered.format.parameters
        far = (_distance(one, name, clock_rate, text) for one in sent)
        return min(((at, value) for at, value in enumerate(far) if value is not None), default=_NOWHERE)

    placed = sorted(((place(offered), index) for index, offered in enumerate(codecs)))
    return tuple(codecs[index] for _, index in placed) if placed and placed[0][0] != _NOWHERE else ()


def _distance(sent: PublicationHere | PublishedFormat, name: CodecName, clock_rate: int, text: str) -> int | None:
    if (name, clock_rate) != (sent.codec, sent.clock_rate):
        return None
    return distance(name, sent.format_parameters, text)


def _mids(sections: Sequence[Section]) -> tuple[str, ...]:
    return tuple(section.media.mid or "" for section in sections)


def _lacking(media: MediaOffer, publication: PublicationHere | None) -> str:
    """Says what a viewer's m-line would have to offer, and what it does."""
    kind = media.kind or MediaKind.VIDEO
    offered = ", ".join(described(kind, line) for line in media.formats) or "no codec by name"
    if publication is None:
        return f"The relay forwards {FORWARDED[kind]}; the m-line of {kind} offers {offered}."
    formats = publication.formats or (publication,)
    sent = ", ".join(_described(_title(one.codec), one.format_parameters) for one in formats)
    differing = dict.fromkeys(
        differing_parameter(one.codec, one.format_parameters, line.format.parameters)
        for one in formats
        for line in forwarded(media)
        if line.codec.name is one.codec
    )
    why = f"; it differs in {', '.join(differing)}" if differing else ""
    verb = "sends" if len(formats) == 1 else "may send"
    return f"The publisher {verb} {sent}; the m-line of {publication.kind} offers {offered}{why}."


def _title(name: CodecName) -> str:
    """The codec's name as people write it."""
    return name.capitalize() if name is CodecName.OPUS else name.upper()


def _described(name: str, parameters: str) -> str:
    return f"{name} ({parameters.strip()})" if parameters.strip() else name


def _sent_outside(offer: Offer) -> Refusal | None:
    """Refuses an m-line that would send on a transport of its own; None when there is no such m-line."""
    for media in offer.media:
        is_outside = media.kind is not None and not media.alive and media.port != 0
        if is_outside and media.direction in (Direction.SENDRECV, Direction.SENDONLY):
            named = "has no a=mid" if media.mid is None else f"has a=mid:{media.mid}"
            detail = (
                f"M-line {media.position + 1}, of {media.kind}, {named} and sends outside of the BUNDLE group: "
                "a=group:BUNDLE must name it, or its port be 0."
            )
            return Refusal(422, "outside-bundle", detail)
    return None


def _not_forwarded(media: MediaOffer, kind: MediaKind) -> Refusal:
    offered = ", ".join(dict.fromkeys(described(kind, line) for line in media.formats)) or "none by name"
    detail = f"No codec of an m-line of {kind} is forwarded: it offers {offered}; the relay forwards {FORWARDED[kind]}."
    return Refusal(422, "no-common-codec", detail)


def _nothing_taken(offer: Offer, detail: str, without_codec: bool) -> Refusal:
    if without_codec:
        # Not 406: in the drafts of WHEP that answers with an offer of the server's own.
        return Refusal(422, "no-common-codec", detail)
    if not any(media.alive and media.kind for media in offer.media):
        return Refusal(422, "no-media", "There is neither audio nor video.")
    return Refusal(422, "wrong-direction", detail)
