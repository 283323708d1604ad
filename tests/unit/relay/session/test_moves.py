"""One session on its way from slot to slot, as one Control sees it."""

import pytest

from millrace.relay.contract.commands import CloseTransport, Detach, MoveTransport, SaveRecord
from millrace.relay.contract.effects import Announce, DeleteElsewhere, PassOn, Reply, SessionMoved
from millrace.relay.contract.events import AdoptionDone, MoveDone, Outcome, TransportAdopted
from millrace.relay.contract.facts import Envelope, Fact, Load, ParticipantGone, PublicationGone, Snapshot
from millrace.relay.contract.ids import Incarnation, Slot
from millrace.relay.contract.inputs import (
    Deleted,
    EngineSaid,
    FactHeard,
    MoveAll,
    MoveAsked,
    Offered,
    Patched,
    RoomDeleted,
    SlotChanged,
    SlotsClosed,
    SnapshotHeard,
    Ticked,
)
from millrace.relay.contract.protocol import Protocol
from millrace.relay.session.moves import OVERLAP_SECONDS
from millrace.relay.session.sessions import Session
from tests.unit.control_kit import Desk, body, desk, header, session_of, told

ONE = Slot(1)


def beside(sessions: int = 0, slot: Slot = ONE, worker: Desk | None = None) -> Desk:
    """A Control in slot 0 that knows of another worker."""
    worker = worker or desk()
    worker.handle(EngineSaid(AdoptionDone(0, 0)))
    worker.handle(SlotChanged(slot, Incarnation(1)))
    worker.handle(SnapshotHeard(Snapshot(slot, Incarnation(1), 0, (Load(sessions, 0, 0, ()),))))
    return worker


def the(worker: Desk) -> Session:
    (session,) = worker.control.sessions.all()
    return session


def settle(worker: Desk, outcome: Outcome, session: Session) -> None:
    worker.handle(EngineSaid(MoveDone(session.transport, ONE, outcome)))


def announced(worker: Desk) -> list[Fact]:
    return [effect.envelope.fact for effect in worker.all(Announce)]


def test_a_move_is_answered_when_it_is_known_what_came_of_it() -> None:
    worker = beside()
    session = session_of(worker.publish())
    gone = the(worker)
    worker.handle(MoveAsked(worker.number(), session, 1))
    assert worker.commands(MoveTransport) == [MoveTransport(gone.transport, ONE)]
    assert worker.all(Reply) == []
    settle(worker, Outcome.MOVED, gone)
    assert body(worker.reply()) == {"session": session, "slot": 1, "outcome": "moved"}
    assert worker.all(SessionMoved)[0].slot == ONE
    assert worker.control.is_empty
    assert worker.commands(CloseTransport) == []
    assert announced(worker) == [], "its facts stand until all have heard the other's"


@pytest.mark.parametrize("outcome", [one for one in Outcome if one is not Outcome.MOVED])
def test_what_does_not_move_says_why_and_goes_on(outcome: Outcome) -> None:
    worker = beside()
    session = session_of(worker.publish())
    worker.handle(MoveAsked(worker.number(), session, 1))
    settle(worker, outcome, the(worker))
    assert worker.reply().status == 409
    assert body(worker.reply())["title"] == f"not moved {outcome.value.replace('_', ' ')}"
    worker.handle(Deleted(worker.number(), session, None))
    assert worker.reply().status == 200
    assert len(worker.commands(CloseTransport)) == 1


def test_a_move_to_where_nobody_may_go_is_refused() -> None:
    worker = beside()
    session = session_of(worker.publish())
    worker.handle(SlotsClosed(frozenset({ONE})))
    for slot, reason in [(0, "already there"), (2, "no worker"), (1, "slot drained")]:
        worker.handle(MoveAsked(worker.number(), session, slot))
        assert (worker.reply().status, body(worker.reply())["title"]) == (409, reason)
    assert worker.commands(MoveTransport) == []


def test_a_request_for_a_session_on_its_way_waits_and_follows_it() -> None:
    worker = beside()
    session = session_of(worker.publish())
    for outcome in (Outcome.BUSY, Outcome.MOVED):
        moving = the(worker)
        worker.handle(MoveAsked(worker.number(), session, 1))
        worker.handle(Patched(asked := worker.number(), session, None, moving.etag, "nothing that parses"))
        assert worker.effects == []
        settle(worker, outcome, moving)
        replies = {reply.request: reply.status for reply in worker.all(Reply)}
        if outcome is Outcome.BUSY:
            assert replies[asked] == 400
        else:
            assert worker.all(PassOn) == [PassOn(asked, ONE)]
    worker.handle(Deleted(asked := worker.number(), session, None))
    assert worker.all(PassOn) == [PassOn(asked, ONE)], "also when nobody has heard of it from there yet"


def test_facts_of_a_session_that_moved_are_withdrawn_when_everybody_has_heard_the_others() -> None:
    worker = beside()
    worker.publish()
    moving = the(worker)
    facts = worker.control.directory.view()
    worker.handle(MoveAsked(worker.number(), moving.id, 1))
    settle(worker, Outcome.MOVED, moving)
    worker.now += OVERLAP_SECONDS - 0.5
    worker.handle(Ticked())
    assert worker.control.directory.view() == facts
    worker.now += 1
    worker.handle(Ticked())
    gone = {type(fact) for fact in announced(worker)}
    assert gone == {PublicationGone, ParticipantGone, Load}
    assert worker.control.directory.view() == frozenset()


def test_what_the_other_slot_withdraws_is_withdrawn_at_once() -> None:
    worker = beside()
    worker.publish()
    moving = the(worker)
    worker.handle(MoveAsked(worker.number(), moving.id, 1))
    settle(worker, Outcome.MOVED, moving)
    here = [fact for fact in worker.control.snapshot().facts if not isinstance(fact, Load)]
    first, second = (PublicationGone(moving.room, publication) for publication in moving.publications)
    heard: list[Fact] = [*here, first, ParticipantGone(moving.room, moving.id), second]
    said = []
    for sequence, fact in enumerate(heard, 1):
        worker.handle(FactHeard(Envelope(ONE, Incarnation(1), sequence, fact)))
        said.append([type(fact) for fact in announced(worker)])
    assert said == [[], [], [], [PublicationGone], [PublicationGone, ParticipantGone], []]
    assert worker.control.directory.view() == frozenset()


def test_a_session_that_ends_on_its_way_ends_where_it_arrives() -> None:
    for outcome in (Outcome.MOVED, Outcome.UNANSWERED):
        worker = beside()
        worker.publish()
        moving = the(worker)
        worker.handle(MoveAsked(worker.number(), moving.id, 1))
        worker.handle(RoomDeleted(worker.number(), "hall"))
        assert worker.commands(CloseTransport) == []
        settle(worker, outcome, moving)
        elsewhere = [effect.deleted.session for effect in worker.all(DeleteElsewhere)]
        assert (elsewhere, len(worker.commands(CloseTransport))) == (
            ([moving.id], 0) if outcome is Outcome.MOVED else ([], 1)
        )
        assert worker.control.is_empty


def test_a_viewer_that_arrives_keeps_its_streams_until_all_that_was_said_is_heard() -> None:
    giver, taker = beside(), desk(slot=1, seed=5)
    beside(slot=Slot(0), worker=taker)
    giver.publish()
    giver.watch()
    records = giver.commands(SaveRecord)
    viewer = next(one for one in giver.control.sessions.all() if one.protocol is Protocol.WHEP)
    adopted = TransportAdopted(
        viewer.transport, records[-1].record, (), tuple(one.subscription for one in viewer.receiving), connected=True
    )
    taker.handle(EngineSaid(adopted))
    assert [type(fact).__name__ for fact in announced(taker)] == ["ParticipantHere"]
    # Its publisher has not been heard of here: that is no reason to detach it.
    told(taker, giver)
    taker.now += 0.5
    taker.handle(Ticked())
    assert taker.commands(Detach) == []
    taker.now += 1
    taker.handle(Ticked())
    assert len(taker.commands(Detach)) == 2


def test_a_drained_slot_gives_everything_away_and_passes_newcomers_on() -> None:
    worker = beside()
    for _ in range(40):
        worker.watch()
    worker.handle(SlotsClosed(frozenset({Slot(0)})))
    given = []
    for _ in range(3):
        worker.handle(MoveAll())
        given.append(worker.commands(MoveTransport))
    assert [len(commands) for commands in given] == [32, 8, 0]
    for command in [*given[0], *given[1]]:
        worker.handle(EngineSaid(MoveDone(command.transport, ONE, Outcome.MOVED)))
    assert worker.control.is_empty
    offered = Offered(worker.number(), Protocol.WHIP, "hall", None, "v=0", None)
    worker.handle(offered)
    assert worker.effects == [PassOn(offered.request, ONE)]
    worker.handle(SlotsClosed(frozenset({Slot(0), ONE})))
    assert worker.publish().status == 503
    assert header(worker.reply(), "Retry-After")
    worker.handle(SlotsClosed(frozenset()))
    assert worker.publish().status == 201
