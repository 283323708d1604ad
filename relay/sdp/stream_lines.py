"""What an offer's m-line tells of its RTP streams: rids, simulcast, SSRCs and their groups. Owns the check of each line
by itself, and the bounds; must never know codecs. Read `relay/negotiation/encodings.py` next, which makes encodings of
it.

A line that is broken is passed over, and the first of two about the same thing counts: a stream that is named wrongly
is a stream without that name, and the offer has others.
"""

import re
from dataclasses import dataclass

from millrace.relay.sdp.lines import number

MAX_SSRCS = 32
"""SSRCs and groups that are read of one m-line; more are passed over. Three encodings with repair have six."""
MAX_RIDS = 16
MAX_SSRC = 4_294_967_295

_RID = re.compile(r"[A-Za-z0-9_-]{1,32}")


@dataclass(frozen=True, slots=True)
class Rid:
    """One a=rid line with direction send (RFC 8851)."""

    name: str
    restrictions: dict[str, str]


@dataclass(frozen=True, slots=True)
class OfferedStreams:
    """The streams of one m-line."""

    rids: tuple[Rid, ...]
    """Rids that the client sends, in the order of a=simulcast, or of the rid lines without one."""
    is_simulcast: bool
    ssrcs: tuple[int, ...]
    repair_by_ssrc: dict[int, int]
    """The SSRC of the repair (RTX) by that of the media, from a=ssrc-group:FID."""
    simulcast_ssrcs: tuple[int, ...]
    """From a=ssrc-group:SIM, which clients without rids write."""


class StreamLines:
    """Collects the lines of one m-line."""

    def __init__(self) -> None:
        self._rids: dict[str, Rid] = {}
        self._simulcast: list[str] | None = None
        self._ssrcs: dict[int, None] = {}
        self._repair: dict[int, int] = {}
        self._simulcast_ssrcs: tuple[int, ...] = ()

    def handle(self, name: str, value: str) -> None:
        """Reads one attribute."""
        match name:
            case "rid":
                self._add_rid(value)
            case "simulcast":
                self._set_simulcast(value)
            case "ssrc":
                self._add_ssrc(value)
            case "ssrc-group":
                self._add_group(value)
            case _:
                pass

    def all_ssrcs(self) -> set[int]:
        """Every SSRC that the m-line names."""
        return {*self._ssrcs, *self._simulcast_ssrcs, *self._repair, *self._repair.values()}

    def finish(self) -> OfferedStreams:
        """Returns what was read."""
        names = self._simulcast if self._simulcast is not None else list(self._rids)
        return OfferedStreams(
            rids=tuple(self._rids[name] for name in names if name in self._rids),
            is_simulcast=self._simulcast is not None,
            ssrcs=tuple(self._ssrcs),
            repair_by_ssrc=dict(self._repair),
            simulcast_ssrcs=self._simulcast_ssrcs,
        )

    def _add_rid(self, value: str) -> None:
        """RFC 8851 section 10. Other directions than send are passed over."""
        parts = value.split(None, 2)
        if len(parts) < 2 or not _RID.fullmatch(parts[0]) or parts[1] != "send" or len(self._rids) >= MAX_RIDS:
            return
        pairs = parts[2].split(";") if len(parts) == 3 else []
        restrictions = {key: text for key, equals, text in (pair.strip().partition("=") for pair in pairs) if equals}
        self._rids.setdefault(parts[0], Rid(parts[0], restrictions))

    def _set_simulcast(self, value: str) -> None:
        """RFC 8853 section 5.1, and the draft's `send rid=a;b` that old browsers write."""
        parts = value.split()
        for direction, streams in zip(parts[::2], parts[1::2], strict=False):
            if direction == "send" and self._simulcast is None:
                names = [stream.split(",")[0].lstrip("~") for stream in streams.removeprefix("rid=").split(";")]
                self._simulcast = list(dict.fromkeys(name for name in names if _RID.fullmatch(name))) or None

    def _add_ssrc(self, value: str) -> None:
        """RFC 5576 section 4.1."""
        ssrc = number(value.partition(" ")[0], MAX_SSRC)
        if ssrc is not None and len(self._ssrcs) < MAX_SSRCS:
            self._ssrcs[ssrc] = None

    def _add_group(self, value: str) -> None:
        """RFC 5576 section 4.2. FID pairs media with its repair (RFC 4588), SIM lists encodings."""
        semantics, *texts = value.split()[: MAX_SSRCS + 1] or [""]
        ssrcs = [ssrc for text in texts if (ssrc := number(text, MAX_SSRC)) is not None]
        if len(ssrcs) != len(texts):
            return
        if semantics == "FID" and len(ssrcs) == 2 and ssrcs[0] != ssrcs[1] and len(self._repair) < MAX_SSRCS:
            self._repair.setdefault(ssrcs[0], ssrcs[1])
        elif semantics == "SIM" and not self._simulcast_ssrcs:
            self._simulcast_ssrcs = tuple(dict.fromkeys(ssrcs))
