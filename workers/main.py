"""Where a forked child becomes a worker: its log, its engine, its loop, its exit status. It must never know what a
worker does. Read next: `workers/worker.py`, which serves.

    fork -> engine started: media of adopted sessions flows -> uvloop, ZeroMQ, HTTP made -> serves
"""

import asyncio
import gc
import logging
import resource
import time
from typing import TYPE_CHECKING

from setproctitle import setproctitle

from millrace.relay.contract.boot import Boot
from millrace.relay.contract.exits import Exit
from millrace.workers import logs

if TYPE_CHECKING:
    from millrace.workers.media import Media

log = logging.getLogger("millrace.worker")

GC_THRESHOLDS = (50_000, 20, 50)
"""Rare collections: a full one stops the loop for tens of milliseconds, and reference counts free nearly everything, as
control makes few cycles.
"""


def run(boot: Boot) -> int:
    """Serves until it is told to stop. Returns the exit status, a `millrace.relay.contract.exits.Exit`."""
    setproctitle(f"millrace: worker {boot.slot}")
    logs.set_up(boot.config.log, f"worker-{boot.slot}")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        from millrace.workers.media import Media

        # Before all else, as clients of this slot's last worker get no media until then.
        media = Media(boot)
        media.start()
        engine_seconds = time.monotonic() - boot.forked_at
        log.debug("the engine runs", extra={"after_ms": round(engine_seconds * 1000)})

        import uvloop
    except Exception:
        log.exception("the worker cannot start")
        return Exit.BOOT_FAILED
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            ending = runner.run(_serve(boot, media, engine_seconds))
        if ending is Exit.RELEASED:
            # After all else, as the engine forwards packets until then.
            media.release()
        return ending
    except Exception:
        log.exception("the worker crashed")
        return Exit.CRASHED


async def _serve(boot: Boot, media: "Media", engine_seconds: float) -> Exit:
    try:
        from millrace.workers.worker import Worker

        worker = Worker(boot, media, engine_seconds)
    except Exception:
        log.exception("the worker cannot start")
        return Exit.BOOT_FAILED
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    return await worker.run()
