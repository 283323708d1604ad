"""The protocol by which a client came. Owns the names, which stand in URLs, in metrics' labels and in records of
sessions; must never know what a protocol does. Read `relay/contract/inputs.py` next.
"""

from enum import StrEnum


class Protocol(StrEnum):
    """Publishers come by WHIP (RFC 9725), viewers by WHEP."""

    WHIP = "whip"
    WHEP = "whep"
