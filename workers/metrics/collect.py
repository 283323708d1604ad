"""Collects what a scrape of any worker shows of the whole box: from the slot table, from every engine's stats page in
the arena, and from what the other workers announce. It must never count anything itself. Read next:
`workers/metrics/render.py`, which makes the page.
"""

import os
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from millrace.relay.contract.boot import Boot, MediaSocket
from millrace.relay.control import Control
from millrace.workers.media import Media
from millrace.workers.metrics.processes import memory_available
from millrace.workers.metrics.render import CONTENT_TYPE, BoxMetrics, Resources, SlotMetrics, render
from millrace.workers.slot_table import SlotTable, monotonic_us


class MetricsPage:
    """Makes the page of one moment."""

    def __init__(
        self, boot: Boot, table: SlotTable, media: Media, control: Control, has_master: Callable[[], bool]
    ) -> None:
        self._boot = boot
        self._table = table
        self._media = media
        self._control = control
        self._has_master = has_master

    async def page(self) -> tuple[bytes, str]:
        """Returns the page in Prometheus' text format, and its content type."""
        boot = self._boot
        box = BoxMetrics(
            version=_version(),
            started_at=boot.started_at,
            steering="handover" if boot.flow_map is None else "ebpf",
            slots=self._slots(),
            master_pid=boot.master if self._has_master() else 0,
            resources=self._resources(),
            sockets=tuple(_shown(media) for media in boot.media_sockets),
            certificate_ends_at=boot.public_tls.ends_at() if boot.public_tls is not None else None,
            lines_dropped=self._table.lines_dropped(),
        )
        return await render(box), CONTENT_TYPE

    def _slots(self) -> tuple[SlotMetrics, ...]:
        now_us, closed = monotonic_us(), self._table.closed()
        engines, loads = self._media.stats(), self._control.loads()
        return tuple(
            SlotMetrics(
                row.slot,
                row.incarnation,
                row.pid if row.lives else 0,
                row.beat_ages(now_us),
                engines[row.slot],
                loads[row.slot].counters if row.slot in loads else (),
                row.drain_deadline(time.time(), now_us),
                row.is_wanted,
                row.slot in closed,
                row.deaths,
                row.replacements,
            )
            for row in self._table.rows()
        )

    def _resources(self) -> Resources:
        arena, sessions = os.fstat(self._boot.arena), self._boot.config.arena.sessions_per_slot
        return Resources(arena.st_size, arena.st_blocks * 512, sessions, _memory_available())


def _version() -> str:
    try:
        return version("millrace")
    except PackageNotFoundError:  # The source tree runs without being installed.
        return "unknown"


def _memory_available() -> int:
    try:
        return memory_available()
    except OSError:  # No descriptor is left.
        return 0


def _shown(media: MediaSocket) -> str:
    return f"[{media.address}]:{media.port}" if ":" in media.address else f"{media.address}:{media.port}"
