"""H264's parameter sets in an offer (`sprop-parameter-sets`, RFC 6184 section 8.1): some publishers have them nowhere
else. Owns how they are read; must never know which stream needs them. Read next: both files `parameter_sets.rs` in
`relay/engine/core/src`.
"""

import base64
import binascii
from collections.abc import Iterable

from millrace.relay.negotiation.codecs import parameters

MAX_BYTES = 1024
"""As much as the engine keeps."""
SPS, PPS = 7, 8


def parameter_sets(format_parameters: Iterable[str]) -> bytes:
    """The units of the first of these fmtp lines that has some, each behind its size in two bytes. What is no parameter
    set is left out: the packets may have better ones.
    """
    for line in format_parameters:
        found = b"".join(len(unit).to_bytes(2, "big") + unit for unit in _units(line))
        if 0 < len(found) <= MAX_BYTES:
            return found
    return b""


def _units(line: str) -> Iterable[bytes]:
    for text in parameters(line).get("sprop-parameter-sets", "").split(",")[:MAX_BYTES]:
        try:
            unit = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            continue
        if unit and unit[0] & 0x1F in (SPS, PPS):
            yield unit
