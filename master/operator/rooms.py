"""`millrace rooms`, `millrace sessions`, `millrace kick`: who is in which room, and how to put one out. It must never
be parsed by another program: that is what `--json` is for. Read next: `relay/admin/views.py`, which says what there is.
"""

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from millrace.master.operator.asking import ask, refuse

_NAME_WIDTH = 32


def rooms(admin: str, as_json: bool) -> int:
    """Prints the open rooms, the largest first. Returns the exit status."""
    status, found = ask("GET", f"{admin}/rooms")
    if status != 200:
        return refuse(found)
    if as_json:
        print(json.dumps(found, indent=2))
        return 0
    print("\n".join(room_lines(found)))
    return 0


def room_lines(found: Sequence[dict[str, Any]]) -> list[str]:
    """Returns rooms as lines of a table."""
    if not found:
        return ["no rooms"]
    lines = [f"{'room':<{_NAME_WIDTH}} participants  publishers  viewers"]
    for room in sorted(found, key=lambda room: -int(room["participants"])):
        publishers, viewers = len(room["publishers"]), room["viewers"]
        lines.append(
            f"{shortened(room['name']):<{_NAME_WIDTH}} {room['participants']:>12} {publishers:>11} {viewers:>8}"
        )
    return lines


def sessions(admin: str, room: str, as_json: bool) -> int:
    """Prints the sessions of a room in the order in which they joined. Returns the exit status."""
    status, found = ask("GET", f"{admin}/rooms/{quote(room, safe='')}")
    if status != 200:
        return refuse(found)
    if as_json:
        print(json.dumps(found, indent=2))
        return 0
    print(f"{'session':<27} {'participant':<{_NAME_WIDTH}} does       slot")
    for one in found["sessions"]:
        does = "watches" if not one["publishes"] else "silent" if one.get("silent") else "publishes"
        print(f"{one['session']:<27} {shortened(one['participant']):<{_NAME_WIDTH}} {does:<10} {one['slot']:>4}")
    return 0


def kick(admin: str, session: str) -> int:
    """Ends a session, whose client gets a goodbye. Returns the exit status."""
    status, said = ask("DELETE", f"{admin}/sessions/{quote(session, safe='')}")
    if status != 200:
        return refuse(said)
    print(f"session {session} is closed")
    return 0


def shortened(name: str) -> str:
    """Returns a name that fits its column and cannot turn the line around it."""
    name = "".join(character if character.isprintable() else "\ufffd" for character in name)
    return name if len(name) <= _NAME_WIDTH else name[: _NAME_WIDTH - 1] + "…"
