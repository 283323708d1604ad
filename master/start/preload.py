"""Imports before the first fork all that a worker ever imports: the files on disk may be another release's by the time
a worker is forked again, and may not fit the modules that the master has. It must never import what starts a thread.
Read next: `master/start/spawn.py`, which forks.
"""

import gc
from contextlib import suppress
from importlib import import_module

WORKERS_OWN = ("millrace.workers.main", "millrace.workers.worker", "millrace.workers.media", "uvloop")
"""With these come the engine, ZeroMQ, HTTP, metrics, the demo page's files, and everything of `relay/`. None of them
starts a thread when it is imported; `tests/system/test_master.py` holds the master to that.
"""
LATER = ("millrace.master.start.x509", "encodings.idna")
"""What is imported in functions: of ours, for certificates that HUP reads anew and the date in the metrics; of Python,
for host names. `tests/system/test_disk.py` has a worker do everything, and finds what is missing here.
"""


def preload() -> None:
    """Imports what a worker and the master need as long as they live. A failed import is ignored here: it is a worker's
    failed boot, with its traceback, and not the master's end.
    """
    for name in WORKERS_OWN + LATER:
        with suppress(Exception):
            import_module(name)
    # A worker's garbage collections then do not write to these objects, and their memory stays shared.
    gc.freeze()
