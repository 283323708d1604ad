"""Takes the connections that came to slots without a worker: they are in the queues of listeners that every worker
holds. It must never decide which slots these are. Read next: `workers/slot_table.py`, which says.

    slot 1 is down --> the first worker that serves listens there, too --> slot 1's next worker serves --> no longer
"""

import logging

from millrace.relay.contract.boot import Boot
from millrace.relay.contract.ids import Slot
from millrace.workers.http.server import HttpServer
from millrace.workers.slot_table import SlotTable

log = logging.getLogger("millrace.worker")


class Substitute:
    """This worker, as far as it stands in for others."""

    def __init__(self, boot: Boot, table: SlotTable, public: HttpServer, admin: HttpServer) -> None:
        self._beat_seconds = boot.config.workers.beat_seconds
        self._table = table
        self._listeners = ((public, boot.http_sockets), (admin, boot.admin_sockets))
        self._deserted: frozenset[Slot] = frozenset()

    def look(self) -> None:
        """Call it each second, once our own listeners are served."""
        deserted = self._table.deserted(self._beat_seconds)
        if deserted == self._deserted:
            return
        self._deserted = deserted
        log.debug("connections of other slots are taken", extra={"slots": sorted(deserted)})
        for server, sockets in self._listeners:
            server.borrow(frozenset(each for slot in deserted for each in sockets[slot]))
