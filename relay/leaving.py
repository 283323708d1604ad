"""Which sessions a worker gives to others, and how many at once: all when it is told to, some when it is late. Must
never know how a session moves. Read next: `relay/load/balance.py`, how long a worker has to be late.
"""

from itertools import islice

from millrace.relay.ledger import Ledger
from millrace.relay.load.balance import STAY_SECONDS, better_off
from millrace.relay.load.counters import Count
from millrace.relay.session.moves import MOVED_AT_ONCE


def move_all(ledger: Ledger) -> None:
    """Moves up to MOVED_AT_ONCE of our sessions to the least busy other slots."""
    can_go = (one for one in ledger.sessions.all() if one.leaving is None and one.stays_until <= ledger.now.steady)
    for session in islice(can_go, MOVED_AT_ONCE):
        slot = ledger.moves.target(ledger.directory, ledger.slot)
        if slot is not None:
            ledger.move(session, slot)


def balance_load(ledger: Ledger, late_seconds: float) -> None:
    """Moves some sessions to workers that are better off, if this worker was late for long enough."""
    late_ms = ledger.config.limits.late_ms
    # At half of `limits.late_ms`, past which no session is opened.
    count = ledger.balance.wanted(late_seconds * 2000 > late_ms, len(ledger.sessions), ledger.now.steady)
    if not count or not ledger.config.workers.balance or ledger.slot in ledger.moves.closed:
        return
    others = better_off(ledger.directory.loads(), ledger.slot, len(ledger.sessions), late_ms)
    begun = 0
    for session in ledger.sessions.all():
        came_lately = session.arrived_at is not None and ledger.now.steady - session.arrived_at < STAY_SECONDS
        if begun == count or came_lately or session.leaving is not None or not session.connected:
            continue
        slot = ledger.moves.target(ledger.directory, ledger.slot, others)
        if slot is not None:
            ledger.move(session, slot)
            ledger.counters.count(Count.SESSIONS_BALANCED)
            begun += 1
    if begun:
        ledger.balance.moved(ledger.now.steady)
