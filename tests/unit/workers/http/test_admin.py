"""The administration routes."""

import os
from collections.abc import Iterator

import pytest

from millrace.relay.contract.effects import Reply
from millrace.relay.contract.ids import RequestId, Slot
from millrace.relay.contract.inputs import (
    Deleted,
    MoveAsked,
    RoomDeleted,
    RoomsAsked,
    SessionAsked,
)
from millrace.relay.contract.layout import SlotState, read_word, slot_offsets
from millrace.workers.http.admin import AdminRoutes
from millrace.workers.http.server import Deadlines
from millrace.workers.metrics.slots import SlotsView
from millrace.workers.slot_table import SlotTable
from tests.unit.arena_kit import Master
from tests.unit.control_kit import desk
from tests.unit.workers.http.http_kit import Control, serve


@pytest.fixture
def master() -> Iterator[Master]:
    """Workers live in the first two slots; the third never had one."""
    master = Master()
    for slot in (0, 1):
        master.write(slot, 1, SlotState.RUNNING)
    master.write(2, 0, SlotState.EMPTY, wanted=False)
    yield master
    os.close(master.arena)


@pytest.fixture
def slots(master: Master) -> Iterator[SlotsView]:
    table = SlotTable(master.arena, 3, Slot(0))
    engine = {"packets_received": 5, "packets_forwarded": 50, "drops.in.no_key": 2, "drops.out.outbox_full": 1}
    engine |= {"kernel_drops.0": 4, "histogram.engine_late.100": 7, "histogram.engine_late.sum": 300}
    yield SlotsView(table, desk().control, lambda: [engine, {}, {}])
    table.close()


async def test_admin_routes_reach_control(slots: SlotsView) -> None:
    control = Control(Reply(RequestId(0), 200, (("Content-Type", "application/json"),), b"{}"))
    reasons: dict[bool, str | None] = {False: "slot 1 does not beat", True: "slot 2 is dead"}

    async def metrics() -> tuple[bytes, str]:
        return b"m 1\n", "text/plain"

    async for site in serve(
        AdminRoutes(control.ask, metrics, reasons.__getitem__, slots), control, Deadlines(5, 60), 4
    ):
        for method, path, asked in [
            ("GET", "/rooms", RoomsAsked(RequestId(0))),
            ("GET", "/rooms/a%20b", RoomsAsked(RequestId(0), "a b")),
            ("DELETE", "/rooms/hall", RoomDeleted(RequestId(0), "hall")),
            ("GET", "/sessions/00.x", SessionAsked(RequestId(0), "00.x")),
            ("DELETE", "/sessions/00.x", Deleted(RequestId(0), "00.x", None, by_admin=True)),
            ("POST", "/sessions/00.x/move?slot=1", MoveAsked(RequestId(0), "00.x", 1)),
        ]:
            async with site.client.request(method, site.url + path) as answer:
                assert answer.status == 200
            assert control.asked.pop() == asked
        async with site.client.get(f"{site.url}/readyz") as answer:
            assert answer.status == 503
            assert "slot 1" in (await answer.json(content_type=None))["detail"]
        reasons[False] = None
        async with site.client.get(f"{site.url}/readyz?all") as answer:
            assert answer.status == 503
            assert "slot 2" in (await answer.json(content_type=None))["detail"]
        for path, status in [("/readyz", 200), ("/healthz", 200), ("/metrics", 200), ("/nothing", 404)]:
            async with site.client.get(site.url + path) as answer:
                assert answer.status == status
        for path, status in [
            ("/sessions/00.x/move", 400),
            ("/sessions/00.x/move?slot=-1", 400),
            ("/slots/0/drain", 200),
            ("/slots/1/drain", 409),
            ("/slots/2/drain", 404),
            ("/slots/3/drain", 404),
            ("/slots/x/drain", 404),
        ]:
            async with site.client.post(site.url + path) as answer:
                assert answer.status == status, path
        row = {"lives": True, "sessions": 0, "publications": 0, "control_late_ms": 0}
        idle = {"packets_in": 0, "packets_out": 0, "drops": 0, "kernel_drops": 0, "engine_late_us": {}}
        busy = {
            "packets_in": 5,
            "packets_out": 50,
            "drops": 3,
            "kernel_drops": 4,
            "engine_late_us": {"100": 7, "sum": 300},
        }
        async with site.client.post(f"{site.url}/sessions/00.x/move?slot=first") as answer:
            assert "?slot=first" in (await answer.json(content_type=None))["detail"]
        async with site.client.get(f"{site.url}/slots") as answer:
            assert await answer.json() == [
                row | busy | {"slot": 0, "drained": True},
                row | idle | {"slot": 1, "drained": False},
            ]
        async with site.client.delete(f"{site.url}/slots/0/drain") as answer:
            assert await answer.json() == row | busy | {"slot": 0, "drained": False}
        async with site.client.post(f"{site.url}/rooms/hall") as answer:
            assert answer.status == 405
            assert "DELETE" in answer.headers["Allow"]


def test_a_slot_that_never_had_a_worker_cannot_be_closed(master: Master, slots: SlotsView) -> None:
    assert slots.close(2, is_closed=True) == "no-slot"
    assert read_word(master.map, slot_offsets(2).closed) == 0
