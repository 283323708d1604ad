"""What rooms and participants may be called: the same as on LiveKit's servers, so that each of their names exists here.
Owns that rule; must never know who has which name. Read `relay/access/admission.py` next, which asks.
"""

import re

_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,256}")
"""No control characters, which could break a line of the log, and no half surrogate pairs, which JSON can spell and
UTF-8 cannot carry.
"""
NAME_EXPECTED = "1 to 256 characters, none a control"


def is_name(text: str) -> bool:
    """True when a participant may have this name, and a room but for `.` and `..`."""
    return _NAME.fullmatch(text) is not None


def is_room_name(text: str) -> bool:
    """True when a room may have this name: not `.` or `..`, which clients remove from a path in whatever form."""
    return is_name(text) and text not in (".", "..")


def is_room_pattern(text: str) -> bool:
    """True when rooms can fit the pattern: a name, in which at most one `*` stands for any characters."""
    return is_room_name(text) and text.count("*") <= 1
