"""`millrace move` and `millrace drain`: asks the administration address of a running server, and prints the outcome. It
must never decide what can move. Read next: `workers/http/admin.py`, which answers.
"""

import time

from millrace.master.operator.asking import ask, refuse

LOOK_SECONDS = 0.2
"""Between two requests for the number of sessions of a slot that is being drained."""


def move(admin: str, session: str, slot: int) -> int:
    """Moves a session to another slot; returns 1 when it stays where it was."""
    status, said = ask("POST", f"{admin}/sessions/{session}/move?slot={slot}")
    if status != 200:
        return refuse(said)
    print(f"session {session} is in slot {slot} now")
    return 0


def drain(admin: str, slot: int, undo: bool) -> int:
    """Drains a slot and waits until it has no session; with `undo`, lets it take sessions again. Returns the exit
    status.
    """
    status, said = ask("DELETE" if undo else "POST", f"{admin}/slots/{slot}/drain")
    if status != 200:
        return refuse(said)
    if undo:
        print(f"slot {slot} takes sessions again")
        return 0
    left = None
    while said["sessions"]:
        if said["sessions"] != left:
            left = said["sessions"]
            print(f"slot {slot} has {left} sessions", flush=True)
        time.sleep(LOOK_SECONDS)
        status, found = ask("GET", f"{admin}/slots")
        if status != 200:
            return refuse(found)
        said = next(one for one in found if one["slot"] == slot)
        if not said["drained"]:
            return refuse({"detail": "another operator has taken the drain back"})
    print(f"slot {slot} has no sessions, and takes none until `millrace drain {slot} --undo`")
    return 0
