"""Imports before the first fork what every worker imports: a respawned one then serves some tenths of a second
earlier, and all share the memory. Never ZeroMQ, uvloop or the engine, which the master stays free of. Read next:
`master/start/spawn.py`.
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
"""None of them starts a thread when it is imported."""


def preload() -> None:
    """Imports them. What cannot be imported is a worker's failed boot, with its traceback, and not the master's end."""
    for name in SHARED:
        with suppress(Exception):
            import_module(name)
    # A worker's collections then leave these objects' memory alone, and it stays shared.
    gc.freeze()
