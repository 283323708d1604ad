"""Where a forked child becomes a worker: its log, its signals, its loop, its exit status. It must never know what a
worker does. Read next: `workers/worker.py`.
"""

import asyncio
import faulthandler
import gc
import logging
import resource
import signal

import uvloop

from relay.boot import Boot
from relay.exits import Exit
from workers import logs

log = logging.getLogger("millrace.worker")

GC_THRESHOLDS = (50_000, 20, 50)
"""Control makes few cycles: a request's garbage goes by reference counts, and full collections stop the loop."""


def run(boot: Boot) -> int:
    """Serves until told to stop; the exit status is a `relay.exits.Exit`."""
    logs.set_up(boot.config.log, f"worker-{boot.slot}")
    faulthandler.enable()  # SIGABRT from the master ends a hanging worker with a traceback.
    # Ctrl-C reaches the whole process group, and it is the master who says when a worker stops. The master waits with
    # its signals blocked, which a fork inherits.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serve(boot))
    except Exception:
        log.exception("the worker ends")
        return Exit.CRASHED


async def _serve(boot: Boot) -> Exit:
    try:
        from workers.worker import Worker

        worker = Worker(boot)
    except Exception:
        log.exception("the worker cannot start")
        return Exit.BOOT_FAILED
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    await worker.run()
    return Exit.STOPPED
