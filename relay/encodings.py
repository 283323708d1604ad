"""The RTP streams of one offered m-line: simulcast by rid (RFC 8853), by SSRC group (older clients), or a single one.

Knows names and SSRCs, never codecs. `negotiation.py` puts them into a track.
"""

from dataclasses import dataclass

from relay.media_section import MAX_ENCODINGS, MediaOffer, Rid

SCALES: tuple[tuple[str, ...], ...] = (
    ("q", "h", "f"),
    ("l", "m", "h"),
    ("low", "mid", "high"),
    ("low", "medium", "high"),
    ("lo", "mid", "hi"),
)
"""Names that tell their quality, lowest first."""

_SIZE_RESTRICTIONS = ("max-width", "max-height", "max-fs", "max-br")


@dataclass(frozen=True, slots=True)
class OfferedEncoding:
    """One RTP stream that a publisher will send; SSRCs that the offer does not tell are learnt from the packets."""

    rid: str | None
    ssrc: int | None
    rtx_ssrc: int | None


def offered_encodings(media: MediaOffer, with_repair: bool) -> tuple[OfferedEncoding, ...]:
    """Lowest quality first, at most three."""
    if media.rids:
        return tuple(OfferedEncoding(rid.name, None, None) for rid in lowest_first(taken_rids(media)))
    # Firefox and OBS list a repair SSRC beside the media's without a group; the first is the media's.
    ssrcs = media.simulcast_ssrcs[:MAX_ENCODINGS] or media.ssrcs[:1]
    if not ssrcs:
        return (OfferedEncoding(None, None, None),)
    return tuple(OfferedEncoding(None, ssrc, media.repair_by_ssrc.get(ssrc) if with_repair else None) for ssrc in ssrcs)


def taken_rids(media: MediaOffer) -> tuple[Rid, ...]:
    """The first three in the offer's order, which is the client's preference (RFC 8853 section 5.2)."""
    return media.rids[:MAX_ENCODINGS]


def lowest_first(rids: tuple[Rid, ...]) -> tuple[Rid, ...]:
    """By what the restrictions say, else by what the names say, else as offered: browsers list them as the page gave
    them to addTransceiver, where going up is the custom.
    """
    for restriction in _SIZE_RESTRICTIONS:
        sizes = {rid.name: _number(rid.restrictions.get(restriction)) for rid in rids}
        if None not in sizes.values() and len(set(sizes.values())) == len(rids):
            return tuple(sorted(rids, key=lambda rid: sizes[rid.name] or 0))
    names = {rid.name.lower() for rid in rids}
    for scale in SCALES:
        if len(names) == len(rids) and names.issubset(scale):
            return tuple(sorted(rids, key=lambda rid: scale.index(rid.name.lower())))
    return rids


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) <= 10 else None
