"""The RTP streams of one offered m-line: simulcast by rid (RFC 8853), by SSRC group (older clients), or a single one.
Owns their order by quality; must never know codecs. Read `relay/negotiation/answering.py` next, which makes tracks of
them.
"""

from dataclasses import dataclass

from millrace.relay.sdp.stream_lines import OfferedStreams, Rid

MAX_ENCODINGS = 3

SCALES: tuple[tuple[str, ...], ...] = (
    ("q", "h", "f"),
    ("l", "m", "h"),
    ("low", "mid", "high"),
    ("low", "medium", "high"),
    ("lo", "mid", "hi"),
    ("3", "2", "1", "0"),
)
"""Rids whose names tell their quality, the lowest first. OBS numbers its encoders from the best one down."""

_SIZE_RESTRICTIONS = ("max-width", "max-height", "max-fs", "max-br")


@dataclass(frozen=True, slots=True)
class OfferedEncoding:
    """One RTP stream that a publisher will send; SSRCs that the offer does not tell are learnt from the packets."""

    rid: str | None
    ssrc: int | None
    rtx_ssrc: int | None


def offered_encodings(streams: OfferedStreams, with_repair: bool) -> tuple[OfferedEncoding, ...]:
    """The encodings of an m-line, the lowest quality first, at most three."""
    if streams.rids:
        return tuple(OfferedEncoding(rid.name, None, None) for rid in lowest_first(taken_rids(streams)))
    repairs = set(streams.repair_by_ssrc.values())
    ssrcs = streams.simulcast_ssrcs[:MAX_ENCODINGS] or [ssrc for ssrc in streams.ssrcs if ssrc not in repairs][:1]
    if not ssrcs:
        return (OfferedEncoding(None, None, None),)
    # A repair SSRC that is taken already is left to be learnt from the packets.
    taken = set(ssrcs)
    encodings = []
    for ssrc in ssrcs:
        repair = streams.repair_by_ssrc.get(ssrc) if with_repair else None
        encodings.append(OfferedEncoding(None, ssrc, repair if repair not in taken else None))
        taken.add(encodings[-1].rtx_ssrc or ssrc)
    return tuple(encodings)


def taken_rids(streams: OfferedStreams) -> tuple[Rid, ...]:
    """The first three in the offer's order, which is the client's preference (RFC 8853 section 5.2)."""
    return streams.rids[:MAX_ENCODINGS]


def lowest_first(rids: tuple[Rid, ...]) -> tuple[Rid, ...]:
    """Orders rids by their restrictions, else by their names, else as offered: browsers list them as the page gave them
    to addTransceiver, usually the lowest first.
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
