"""Which RTP header extensions of an offer go into the answer (RFC 8285). Owns that choice; must never know codecs or
m-lines. Read `relay/sdp/extmap.py` next, for the extensions that are known; the engine rewrites the ids chosen here.
"""

from collections.abc import Iterable

from millrace.relay.contract.commands import Extension, ExtensionKind, MediaKind
from millrace.relay.sdp.extmap import PLACEHOLDER_IDS, ExtensionMap
from millrace.relay.sdp.lines import Direction

VIDEO_ONLY = frozenset(
    {
        ExtensionKind.RID,
        ExtensionKind.REPAIRED_RID,
        ExtensionKind.PLAYOUT_DELAY,
        ExtensionKind.VIDEO_ORIENTATION,
        ExtensionKind.DEPENDENCY_DESCRIPTOR,
        ExtensionKind.VIDEO_CONTENT_TYPE,
        ExtensionKind.COLOR_SPACE,
    }
)

NOT_FOR_VIEWERS = frozenset({ExtensionKind.RID, ExtensionKind.REPAIRED_RID, ExtensionKind.TRANSPORT_CC})
"""A viewer gets one encoding without a name, and no transport-wide sequence numbers, as its bandwidth is not estimated.
"""


def select_from_publisher(
    offered: Iterable[ExtensionMap], kind: MediaKind, *, transport_cc: bool, rids: bool
) -> tuple[ExtensionMap, ...]:
    """The extensions that a publisher may send us. `transport_cc` is true when its feedback was offered, without which
    the extension is of no use; `rids` when the offer names rids, as OBS sends some for its only encoding.
    """
    unwanted = set() if transport_cc else {ExtensionKind.TRANSPORT_CC}
    if not rids:
        unwanted |= {ExtensionKind.RID, ExtensionKind.REPAIRED_RID}
    return tuple(
        line
        for line in _selectable(offered, kind)
        if line.direction in (None, Direction.SENDRECV, Direction.SENDONLY) and line.kind not in unwanted
    )


def select_to_viewer(offered: Iterable[ExtensionMap], kind: MediaKind) -> tuple[ExtensionMap, ...]:
    """The extensions that we may send to a viewer."""
    return tuple(
        line
        for line in _selectable(offered, kind)
        if line.direction in (None, Direction.SENDRECV, Direction.RECVONLY) and line.kind not in NOT_FOR_VIEWERS
    )


def numbered(lines: Iterable[ExtensionMap]) -> tuple[Extension, ...]:
    """The extensions with their ids, as the engine's commands carry them."""
    return tuple(Extension(line.id, line.kind) for line in lines if line.kind is not None)


def _selectable(offered: Iterable[ExtensionMap], kind: MediaKind) -> list[ExtensionMap]:
    """The known extensions, the first of each meaning."""
    first: dict[ExtensionKind, ExtensionMap] = {}
    for line in offered:
        meaning = line.kind
        if meaning is None or line.id in PLACEHOLDER_IDS:
            continue
        if kind is MediaKind.AUDIO and meaning in VIDEO_ONLY:
            continue
        first.setdefault(meaning, line)
    return list(first.values())
