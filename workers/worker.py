"""One worker: passes each input to control, and performs each effect that control returns. It must never decide
anything itself; every effect is one line. Read next: `relay/control.py`, which decides.

    http, admin --- Offered, Patched ... ---+                          +--- Reply ----------> pending -> http
    hook ---------- HookAnswered -----------+                          +--- AskHook --------> hook
    bus ----------- FactHeard ... ----------+---> Control.handle --->--+--- Submit ---------> media
    media --------- EngineSaid -------------+                          +--- Announce ... ---> bus
    slot table ---- SlotChanged ------------+                          +--- SessionEnded ---> session_log
    each second --- Ticked -----------------+
"""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Coroutine
from contextlib import suppress

from millrace.relay.access.admission import session_slot
from millrace.relay.config.model import is_loopback
from millrace.relay.contract.access import HookQuestion
from millrace.relay.contract.boot import Boot
from millrace.relay.contract.clock import Now
from millrace.relay.contract.effects import (
    Announce,
    AskEnds,
    AskHook,
    AskSnapshot,
    CloseRoomEverywhere,
    DeleteElsewhere,
    Effect,
    EngineRefused,
    PassOn,
    Reply,
    SessionEnded,
    SessionMoved,
    SessionOpened,
    SessionsAdopted,
    Submit,
    TellEnds,
)
from millrace.relay.contract.exits import Exit
from millrace.relay.contract.ids import NO_REQUEST, Slot
from millrace.relay.contract.inputs import (
    Deleted,
    DrainBegan,
    EngineSaid,
    FactHeard,
    HookAnswered,
    Input,
    MoveAll,
    RoomClosedElsewhere,
    SessionRequest,
    SlotChanged,
    SlotsClosed,
    SnapshotHeard,
    Ticked,
)
from millrace.relay.contract.problems import problem
from millrace.relay.control import Control, MediaEndpoint
from millrace.relay.load.counters import Count, Seconds
from millrace.workers import logs
from millrace.workers.bus import Bus, Handlers
from millrace.workers.hook import HookClient
from millrace.workers.http.admin import AdminRoutes
from millrace.workers.http.origins import Cors, Guard
from millrace.workers.http.page import DEMO
from millrace.workers.http.public import PublicRoutes
from millrace.workers.http.refusals import Refusals
from millrace.workers.http.renewal import Renewal
from millrace.workers.http.server import Deadlines, HttpServer
from millrace.workers.media import Media
from millrace.workers.metrics.collect import MetricsPage
from millrace.workers.metrics.gauge import Gauge
from millrace.workers.metrics.slots import SlotsView
from millrace.workers.orphan import Orphan
from millrace.workers.passing_on import answer_passed_on, pass_on
from millrace.workers.pending import MakeRequest, PendingRequests
from millrace.workers.scheduling import lower_priority
from millrace.workers.session_log import log_effect
from millrace.workers.slot_table import SlotTable
from millrace.workers.substitute import Substitute
from millrace.workers.track_log_table import TrackLogTable

log = logging.getLogger("millrace.worker")

BEAT_SECONDS = 0.1
"""Between beats, and between reads of the slot table: a tenth of the least `workers.beat_seconds`, so that some late
beats are no hang, and a successor is asked for its facts soon after its birth.
"""
BEATS_PER_TICK = 10
ASK_SECONDS = 5.0
"""For a reply of control, which replies at once but when it asks the engine (3 s) or another worker (4 s)."""
STOP_SECONDS = 2.0
START_SECONDS = 1.0
"""For the engine to name each session that it adopts, and again for the directory to converge; usually milliseconds.
Meanwhile requests wait in the listener's queue, so that none is answered from half a directory. After that time the
worker serves all the same.
"""
LEAVE_SECONDS = 2.0
"""How long a worker that leaves still takes connections. The kernel may have begun some before it was told to pick
other slots, and a handshake whose SYN-ACK is lost takes a second more. No client waits meanwhile.
"""


class Worker:
    """Everything of one slot's process above its engine: HTTP, bus, control."""

    def __init__(self, boot: Boot, media: Media, engine_seconds: float) -> None:
        self._boot = boot
        self._media = media
        endpoint = MediaEndpoint(boot.fingerprint, boot.candidates, TrackLogTable(boot.arena, boot.slot).is_foreign)
        self._control = Control(boot.config, boot.slot, boot.incarnation, endpoint, os.urandom)
        self._control.counters.measured(Seconds.WORKER_ENGINE_STARTED, engine_seconds)
        self._slot_table = SlotTable(boot.arena, boot.slots, boot.slot)
        self._closed: frozenset[Slot] = frozenset()
        self._pending = PendingRequests(self._handle_request)
        handlers = Handlers(
            fact=lambda envelope: self._handle_guarded(FactHeard(envelope)),
            snapshot=lambda snapshot: self._handle_guarded(SnapshotHeard(snapshot)),
            own_snapshot=self._control.snapshot,
            passed_on=lambda call: answer_passed_on(call, self._pending),
            room_closed=self._handle_guarded,
            ends=self._handle_guarded,
            own_tombstones=self._control.recent_tombstones,
            lost=lambda kind: self._control.counters.count(Count(f"bus_{kind}")),
            unknown=self._control.counters.unknown,
        )
        others = [row.slot for row in self._slot_table.rows() if row.slot != boot.slot and not row.is_empty]
        self._bus = Bus(boot.runtime_directory, boot.slot, others, handlers)
        deadlines = Deadlines(boot.config.limits.request_seconds, boot.config.limits.idle_seconds)
        config = boot.config
        origins = config.http.cors_origins
        cors = Cors(origins, config.is_open)
        ours = Guard(origins, checks_host=False)
        path = config.http.public_path
        page = DEMO.framed_by(config.http.frame_ancestors)
        public = PublicRoutes(
            self._ask, page, cors, deadlines, config.limits.sdp_bytes, ours, path, config.http.trusted_proxies
        )
        guard = Guard(origins, checks_host=True) if config.is_open else None
        self._refusals = Refusals(self._control.counters.refused, path)
        self._public = HttpServer(public, deadlines, guard=guard, cors=cors)
        self._public.refusals = self._refusals
        slots = SlotsView(self._slot_table, self._control, media.stats)
        self._orphan = Orphan(boot, self._sessions, self._stop)
        metrics = MetricsPage(boot, self._slot_table, media, self._control, lambda: not self._orphan.is_orphaned)
        admin = AdminRoutes(self._ask, metrics.page, self._not_ready, slots)
        # An address that is not loopback may have a host name, so there any Host is taken.
        self._admin = HttpServer(admin, deadlines, guard=Guard((), checks_host=is_loopback(config.admin.bind)))
        self._hook = HookClient(config.auth)
        self._serves = False
        """True once our listeners are served."""
        self._substitute = Substitute(boot, self._slot_table, self._public, self._admin)
        self._renewal = Renewal(boot.public_tls)
        self._gauge = Gauge(BEAT_SECONDS)
        self._beats = 0
        self._next_beat: asyncio.TimerHandle | None = None
        self._converged = asyncio.Event()
        self._told_to_end = asyncio.Event()
        self._is_releasing = False
        self._is_leaving = False
        """True when the worker is to move its sessions away, and leaves an empty slot."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> Exit:
        """Serves until SIGTERM, or until no master follows a dead one (`workers/orphan.py`): then it returns
        `Exit.STOPPED`. SIGUSR2 ends it with `Exit.RELEASED`, and a slot that is not wanted with `Exit.RETIRED`; the
        engine then still runs.
        """
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop)
        loop.add_signal_handler(signal.SIGUSR2, self._release)
        loop.add_signal_handler(signal.SIGUSR1, logs.reopen)
        self._media.listen(lambda event: self._handle_guarded(EngineSaid(event)))
        # Facts are announced only when all adopted sessions are known, as others take a session without facts for gone.
        if not await self._media.adoption_done(START_SECONDS):
            log.warning("the engine has not named all adopted sessions in time", extra={"seconds": START_SECONDS})
        self._bus.start()
        # From here on the master, or our own look for one, ends a worker that hangs.
        signal.alarm(0)
        self._beat()
        await _within(START_SECONDS, self._converged)
        tls = self._boot.public_tls
        await self._public.start(self._boot.http_sockets[self._boot.slot], tls.context if tls is not None else None)
        await self._admin.start(self._boot.admin_sockets[self._boot.slot])
        self._started()
        await self._told_to_end.wait()
        if self._is_releasing:
            listening = LEAVE_SECONDS if self._is_leaving else 0
            servers = (self._public, self._admin)
            await asyncio.gather(*(server.release(STOP_SECONDS, listening) for server in servers))
            while self._is_releasing and self._is_leaving and not self._control.is_done:
                await asyncio.sleep(BEAT_SECONDS)
            await self._media.all_sent(STOP_SECONDS)
            # An orphaned worker stays: the next master needs its descriptors before it forks a successor.
            while self._is_releasing and self._orphan.is_orphaned:
                await asyncio.sleep(BEAT_SECONDS)
        # SIGTERM may have come meanwhile. Then no worker goes on with the sessions.
        if not self._is_releasing:
            await self._say_goodbye()
        if self._next_beat is not None:
            self._next_beat.cancel()
        for task in self._tasks:
            task.cancel()
        await self._hook.stop()
        self._bus.stop()
        self._slot_table.close()
        if self._is_releasing:
            return Exit.RETIRED if self._is_leaving and self._control.is_empty else Exit.RELEASED
        return Exit.STOPPED

    def _stop(self) -> None:
        self._is_releasing = False
        self._told_to_end.set()

    def _release(self) -> None:
        # A worker that was leaving no longer waits until its sessions are moved: its successor does that.
        self._is_leaving = False
        if not self._told_to_end.is_set():
            self._is_releasing = True
            self._told_to_end.set()

    def _leave(self) -> None:
        if not self._told_to_end.is_set():
            log.info("the worker moves its sessions away and exits", extra={"sessions": len(self._control.sessions)})
            self._is_releasing = self._is_leaving = True
            self._told_to_end.set()

    async def _say_goodbye(self) -> None:
        await self._public.stop(STOP_SECONDS)
        for effect in self._control.stop(_now()):
            self._perform(effect)
        await self._media.wait_closed(STOP_SECONDS)
        await self._admin.stop(STOP_SECONDS)
        self._media.stop()

    def _started(self) -> None:
        self._serves = True
        lower_priority()
        seconds = time.monotonic() - self._boot.forked_at
        self._control.counters.measured(Seconds.WORKER_CONTROL_STARTED, seconds)
        log.debug("the control plane serves", extra={"after_ms": round(seconds * 1000)})

    def _handle(self, what: Input) -> None:
        for effect in self._control.handle(what, _now()):
            self._perform(effect)
        if self._control.has_converged:
            self._converged.set()

    def _handle_request(self, what: Input) -> None:
        """Handles a request, whose client waits. We read the slot table once a beat, so a slot that we think empty may
        serve already. Before a request for it is refused, we read the table again.
        """
        named = session_slot(what.session) if isinstance(what, SessionRequest) else None
        if named is not None and not self._control.directory.is_alive(named[1]):
            self._look_at_slots()
        self._handle(what)

    def _handle_guarded(self, what: Input) -> None:
        """Handles an input that no client waits for. An exception is a defect: it is logged and counted, and this input
        is lost. Ending the process would interrupt every client of this worker.
        """
        try:
            self._handle(what)
        except Exception:
            self._control.counters.count(Count.DEFECTS)
            log.exception("an input failed", extra={"input": type(what).__name__})

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Reply():
                self._pending.reply(effect)
            case Submit(commands):
                self._media.submit(commands)
            case Announce(envelope):
                self._bus.announce(envelope)
            case AskSnapshot(slot):
                self._bus.ask_snapshot(slot)
            case PassOn():
                self._spawn(pass_on(effect, self._pending, self._bus))
            case AskHook(question):
                self._spawn(self._ask_hook(question))
            case DeleteElsewhere(slot, deleted):
                self._spawn(self._delete_elsewhere(slot, deleted))
            case CloseRoomEverywhere(room):
                self._bus.close_room(RoomClosedElsewhere(room))
            case TellEnds(slots, ends):
                self._bus.tell_ends(slots, ends)
            case AskEnds(slot):
                self._bus.ask_ends(slot)
            case SessionOpened() | SessionEnded() | SessionsAdopted() | SessionMoved() | EngineRefused():
                log_effect(effect)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, make: MakeRequest) -> Reply:
        reply = await self._pending.ask(make, ASK_SECONDS)
        return reply or problem(NO_REQUEST, 504, "no-answer", "No answer came in time.")

    async def _ask_hook(self, question: HookQuestion) -> None:
        self._handle_guarded(HookAnswered(question, await self._hook.ask(question)))

    async def _delete_elsewhere(self, slot: Slot, deleted: Deleted) -> None:
        await self._bus.call(slot, deleted)

    def _beat(self) -> None:
        """Runs ten times a second, with cold caches, so it reads only what has to be read each time. A defect here ends
        the beats, for which the master kills this worker.
        """
        self._slot_table.beat()
        self._gauge.beat(time.monotonic(), self._slot_table.engine_age())
        if self._slot_table.was_written():
            self._read_slot_table()
        if self._boot.slot in self._closed and not self._control.is_empty:
            self._handle_guarded(MoveAll())
        if self._slot_table.is_draining():
            self._handle_guarded(DrainBegan())
            self._slot_table.report_drained(not len(self._control.sessions))
        if self._beats % BEATS_PER_TICK == 0:
            self._control.counters.measured(Seconds.CONTROL_LATE, self._gauge.control_late())
            self._handle_guarded(self._gauge.measure())
            self._handle_guarded(Ticked())
            self._renewal.look()
            self._boot.runtime_lock.look(may_make=self._orphan.is_orphaned)
            self._bus.look()
            if self._serves:
                self._substitute.look()
            self._refusals.tick()
            logs.tell_dropped()
            self._slot_table.add_lines_dropped(logs.newly_dropped())
        self._orphan.look()
        self._beats += 1
        self._next_beat = asyncio.get_running_loop().call_later(BEAT_SECONDS, self._beat)

    def _read_slot_table(self) -> None:
        self._look_at_slots()
        if (closed := self._slot_table.unavailable()) != self._closed:
            self._closed = closed
            self._handle_guarded(SlotsClosed(closed))
        if not self._slot_table.is_wanted():
            self._leave()
        elif self._is_leaving:
            # The slot is wanted after all. Our listeners are closed by now, or soon; a successor listens again.
            self._release()
        if level := self._slot_table.log_level():
            logs.set_level(level)

    def _look_at_slots(self) -> None:
        for changed in self._slot_table.changes():
            self._slot_changed(changed)

    def _slot_changed(self, changed: SlotChanged) -> None:
        if changed.is_empty:
            self._bus.disconnect(changed.slot)
        else:
            # Before control hears of it, as control then asks that worker for its facts.
            self._bus.connect(changed.slot)
        self._handle_guarded(changed)
        if changed.incarnation is not None:
            self._bus.ask_again(changed.slot)

    def _sessions(self) -> int:
        others = (load.sessions for slot, load in self._control.loads().items() if slot != self._boot.slot)
        return len(self._control.sessions) + sum(others)

    def _not_ready(self, needs_all: bool) -> str | None:
        if self._orphan.is_orphaned:
            return "the master is gone"
        return self._slot_table.not_ready(self._boot.config.workers.beat_seconds, needs_all)


def _now() -> Now:
    return Now(steady=time.monotonic(), unix=time.time())


async def _within(seconds: float, event: asyncio.Event) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
