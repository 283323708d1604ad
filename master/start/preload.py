"""Imports before the first fork what every worker imports: a respawned worker then serves some tenths of a second
earlier, and all share the memory. It must never import ZeroMQ, uvloop or the engine, of which the master stays free.
Read next: `master/start/spawn.py`, which forks.
"""

import gc
from contextlib import suppress
from importlib import import_module

SHARED = (
    *("asyncio", "aiohttp.web", "jwt", "msgpack", "prometheus_client"),
    *("millrace.relay.control", "millrace.relay.negotiation.answering", "millrace.relay.contract.engine_config"),
    *(
        "millrace.workers.main",
        "millrace.workers.http.server",
        "millrace.workers.http.public",
        "millrace.workers.http.admin",
        "millrace.workers.http.page",
        "millrace.workers.metrics.render",
    ),
    *("millrace.workers.pending", "millrace.workers.slot_table"),
)
"""Modules that start no thread when they are imported."""
HTTPS = ("ssl", "millrace.master.start.x509")
"""For the date in the metrics; on a worker's loop the import would make it late by a tenth of a second."""


def preload(is_https: bool = False) -> None:
    """Imports what workers share. A failed import is ignored here: it is a worker's failed boot, with its traceback,
    and not the master's end.
    """
    for name in SHARED + (HTTPS if is_https else ()):
        with suppress(Exception):
            import_module(name)
    # A worker's garbage collections then do not write to these objects, and their memory stays shared.
    gc.freeze()
