from dataclasses import replace

from millrace.master.operator.cli import keys
from millrace.relay.config.model import Config
from millrace.relay.config.parse import parse
from millrace.relay.contract.commands import CloseTransport
from millrace.relay.contract.effects import Announce, AskSnapshot
from millrace.relay.contract.facts import Envelope, Load
from millrace.relay.contract.ids import Incarnation, Slot
from millrace.relay.contract.inputs import Deleted, DrainBegan, FactHeard, SlotChanged, SnapshotHeard, Ticked
from tests.unit.control_kit import body, desk, header, moment, session_of, told


def test_a_draining_worker_opens_no_room_and_keeps_who_is_there() -> None:
    worker = desk()
    session = session_of(worker.publish())
    assert worker.handle(DrainBegan()) == []
    refused = worker.watch("cellar")
    assert refused.status == 503
    assert body(refused)["type"] == "urn:millrace:problem:draining"
    assert int(header(refused, "Retry-After")) > 0
    assert len(worker.control.sessions) == 1
    worker.handle(Deleted(worker.number(), session, None))
    assert worker.reply().status == 200
    assert len(worker.control.sessions) == 0


def test_a_draining_worker_lets_people_into_rooms_that_go_on() -> None:
    worker, other = desk(), desk(slot=1)
    for each in (worker, other):
        each.handle(DrainBegan())
    assert worker.publish().status == 503
    worker, other = desk(), desk(slot=1)
    watching = session_of(worker.watch())
    told(worker, other)
    for each in (worker, other):
        each.handle(DrainBegan())
    publishing = other.publish()
    assert publishing.status == 201, "the viewer waits for it"
    told(other, worker)
    worker.handle(Deleted(worker.number(), watching, None))
    assert worker.watch().status == 201, "its page was reloaded"


def test_nobody_is_let_in_any_more_once_goodbye_is_said() -> None:
    worker, other = desk(), desk(slot=1)
    other.publish()
    told(other, worker)
    worker.handle(DrainBegan())
    worker.control.stop(moment(worker.now))
    assert body(worker.watch())["type"] == "urn:millrace:problem:draining"


def test_while_draining_strangers_do_not_learn_which_rooms_there_are() -> None:
    config = parse(keys())
    assert isinstance(config, Config)
    worker = desk(config)
    worker.handle(DrainBegan())
    assert worker.watch("cellar").status == 401


def test_sessions_that_are_left_are_closed_towards_their_clients() -> None:
    worker = desk()
    worker.publish()
    worker.watch()
    worker.handle(DrainBegan())
    worker.effects = worker.control.stop(moment(worker.now))
    assert len(worker.commands(CloseTransport)) == 2


def test_stopping_closes_every_session_and_takes_no_more() -> None:
    worker = desk()
    worker.publish()
    worker.watch()
    worker.effects = worker.control.stop(moment(worker.now))
    assert len(worker.commands(CloseTransport)) == 2
    assert not worker.control.directory.view()
    assert worker.publish().status == 503


def test_the_same_seed_and_inputs_give_the_same_effects() -> None:
    one, two = desk(seed=5), desk(seed=5)
    assert one.publish() == two.publish()
    assert one.effects == two.effects
    assert replace(one.reply()) == two.reply()


def test_a_tick_tells_others_how_busy_we_are() -> None:
    worker = desk()
    worker.publish()
    worker.watch()
    worker.handle(Ticked())
    (announce,) = worker.all(Announce)
    load = announce.envelope.fact
    assert isinstance(load, Load)
    assert (load.sessions, load.publications, load.subscriptions) == (2, 2, 2)
    assert ('millrace_sessions_opened_total{protocol="whep"}', 1) in load.counters
    assert worker.control.loads() == {0: load}


def test_a_respawned_worker_asks_every_living_slot() -> None:
    one, two = desk(slot=0), desk(slot=1, incarnation=2)
    one.publish()
    two.handle(SlotChanged(Slot(0), Incarnation(1)))
    assert two.effects == [AskSnapshot(Slot(0))]
    two.watch()
    two.handle(SnapshotHeard(one.control.snapshot()))
    assert two.control.directory.view() >= one.control.directory.view()
    assert len(two.effects) == 1  # the viewer is fed


def test_a_gap_asks_for_a_snapshot() -> None:
    worker = desk()
    worker.handle(FactHeard(Envelope(Slot(1), Incarnation(1), 2, Load(0, 0, 0, ()))))
    assert worker.effects == [AskSnapshot(Slot(1))]
    assert worker.control.counters.values["millrace_snapshots_asked_total"] == 1
