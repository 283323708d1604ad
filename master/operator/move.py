"""`millrace move` and `millrace drain`: asks the administration address of a running server, and prints the outcome. It
must never decide what can move. Read next: `workers/http/admin.py`, which answers.
"""

import json
import sys
import time
import urllib.error
import urllib.request
from typing import Any

LOOK_SECONDS = 0.2
"""Between two requests for the number of sessions of a slot that is being drained."""


def move(admin: str, session: str, slot: int) -> int:
    """Moves a session to another slot; returns 1 when it stays where it was."""
    status, said = _ask("POST", f"{admin}/sessions/{session}/move?slot={slot}")
    if status != 200:
        return _refuse(said)
    print(f"session {session} is in slot {slot} now")
    return 0


def drain(admin: str, slot: int, undo: bool) -> int:
    """Drains a slot and waits until it has no session; with `undo`, lets it take sessions again. Returns the exit
    status.
    """
    status, said = _ask("DELETE" if undo else "POST", f"{admin}/slots/{slot}/drain")
    if status != 200:
        return _refuse(said)
    if undo:
        print(f"slot {slot} takes sessions again")
        return 0
    left = None
    while said["sessions"]:
        if said["sessions"] != left:
            left = said["sessions"]
            print(f"slot {slot} has {left} sessions", flush=True)
        time.sleep(LOOK_SECONDS)
        status, found = _ask("GET", f"{admin}/slots")
        if status != 200:
            return _refuse(found)
        said = next(one for one in found if one["slot"] == slot)
        if not said["drained"]:
            return _refuse({"detail": "another operator has taken the drain back"})
    print(f"slot {slot} has no sessions, and takes none until `millrace drain {slot} --undo`")
    return 0


def _ask(method: str, url: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        try:
            return error.code, json.loads(error.read())
        except ValueError:
            return error.code, {"detail": str(error)}
    except (OSError, ValueError) as error:
        return 0, {"detail": f"{url} does not answer: {error}"}


def _refuse(said: dict[str, Any]) -> int:
    print(f"millrace: {said.get('detail')}", file=sys.stderr)
    return 1
