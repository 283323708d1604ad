"""What events of the engine do to sessions; and how a successor's Control adopts what its predecessor had, from the
records alone.
"""

from dataclasses import replace
from typing import Any

import pytest

from millrace.relay.contract.commands import (
    Attach,
    CloseTransport,
    Detach,
    OpenTransport,
    Publish,
    SaveRecord,
    Subscribe,
)
from millrace.relay.contract.effects import Announce, EngineRefused, SessionEnded, SessionsAdopted
from millrace.relay.contract.events import (
    AdoptionDone,
    Cause,
    CommandFailed,
    PublicationEnded,
    PublicationStarted,
    TransportClosed,
)
from millrace.relay.contract.facts import ParticipantGone, ParticipantHere, PublicationGone, PublicationHere
from millrace.relay.contract.ids import Incarnation, RequestId, Slot
from millrace.relay.contract.inputs import Deleted, EngineSaid, Patched, RoomsAsked, SlotChanged, SnapshotHeard, Ticked
from millrace.relay.membership.convergence import CONVERGENCE_SECONDS
from tests.unit.adoption_kit import Recorder, adoptions, plain, successor
from tests.unit.control_kit import Desk, body, desk, facts, header, session_of, told

RESTART = (
    "a=ice-ufrag:wxyz\r\na=ice-pwd:0123456789abcdefghijklmn\r\n"
    "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\na=end-of-candidates\r\n"
)


@pytest.fixture
def hall() -> tuple[Desk, Recorder]:
    """A publisher that has restarted its ICE, one track of which has said BYE, and two viewers."""
    worker, recorder = desk(), Recorder()
    session = session_of(worker.publish())
    recorder.see(worker)
    for watch in (worker.watch, lambda: worker.watch(participant="nobody")):
        watch()
        recorder.see(worker)
    worker.handle(Patched(worker.number(), session, None, "*", RESTART))
    recorder.see(worker)
    worker.handle(EngineSaid(PublicationEnded(next(iter(worker.control.sessions.all()[0].publications)))))
    recorder.see(worker)
    return worker, recorder


def test_rebuilt_sessions_equal_the_originals(hall: tuple[Desk, Recorder]) -> None:
    worker, recorder = hall
    adopter = successor(adoptions(worker, recorder))
    assert adopter.all(SessionsAdopted) == [SessionsAdopted(3, 0)]
    originals = [plain(session) for session in worker.control.sessions.all()]
    assert [plain(session) for session in adopter.control.sessions.all()] == originals
    assert adopter.control.directory.own_facts() == worker.control.directory.own_facts()


def test_facts_are_announced_under_the_new_incarnation_with_the_same_ids(hall: tuple[Desk, Recorder]) -> None:
    worker, recorder = hall
    publisher = adoptions(worker, recorder)[0]
    adopter = desk(incarnation=2)
    adopter.handle(EngineSaid(publisher))
    envelopes = [announce.envelope for announce in adopter.all(Announce)]
    assert [(one.incarnation, one.sequence) for one in envelopes] == [(2, 1), (2, 2)]
    here, track = (one.fact for one in envelopes)
    assert isinstance(here, ParticipantHere)
    assert isinstance(track, PublicationHere)
    assert {here, track} < worker.control.directory.view()
    adopter.handle(EngineSaid(PublicationStarted(publisher.publications[0])))
    (again,) = adopter.all(Announce)
    assert isinstance(again.envelope.fact, PublicationHere)


def test_adopted_sessions_answer_patch_and_delete(hall: tuple[Desk, Recorder]) -> None:
    worker, recorder = hall
    publisher = worker.control.sessions.all()[0]
    adopter = successor(adoptions(worker, recorder))
    adopter.handle(Patched(adopter.number(), publisher.id, None, publisher.etag, RESTART))
    assert adopter.reply().status == 204
    worker.handle(Patched(worker.number(), publisher.id, None, "*", RESTART))
    adopter.handle(Patched(adopter.number(), publisher.id, None, "*", RESTART))
    assert (adopter.reply().status, adopter.reply().body) == (200, worker.reply().body)
    adopter.handle(Patched(adopter.number(), publisher.id, None, "*", RESTART.replace("wxyz", "qrst")))
    assert adopter.reply().status == 200
    assert header(adopter.reply(), "ETag") != publisher.etag
    assert adopter.commands(SaveRecord)
    adopter.handle(Deleted(adopter.number(), publisher.id, None))
    assert adopter.reply().status == 200
    assert adopter.commands(CloseTransport) == [CloseTransport(publisher.transport)]
    assert len(adopter.control.sessions) == 2


def test_numbers_of_adopted_sessions_are_not_given_again(hall: tuple[Desk, Recorder]) -> None:
    worker, recorder = hall
    logs = {log for one in worker.control.sessions.all() for p in one.publications.values() for log in p.logs}
    adopter = successor(adoptions(worker, recorder))
    adopter.publish(room="attic")
    taken = {encoding.log for publish in adopter.commands(Publish) for encoding in publish.encodings}
    assert logs
    assert not taken & logs
    # The same chance again draws the same SSRCs first.
    ssrcs = {ssrc for one in worker.control.sessions.all() for ssrc in one.ssrcs}
    twin = desk(incarnation=2)
    for event in adoptions(worker, recorder):
        twin.handle(EngineSaid(event))
    twin.publish(room="attic")
    twin.watch(room="attic")
    drawn = {ssrc for one in twin.commands(Subscribe) for ssrc in (one.ssrc, one.rtx_ssrc)}
    assert len(drawn) >= 2
    assert not drawn & ssrcs


@pytest.mark.parametrize(
    "spoil",
    [
        lambda event: replace(event, record=b""),
        lambda event: replace(event, record=event.record[:-1]),
        lambda event: replace(event, record=event.record.replace(event.record[:2], b"\x92\x63", 1)),
        lambda event: replace(event, record=b"\x92\x01\xc0"),
        lambda event: replace(event, publications=event.publications[:-1]),
        lambda event: replace(event, subscriptions=(5,)),
        lambda event: replace(event, transport=event.transport + 1),
    ],
)
def test_a_session_that_cannot_be_rebuilt_is_closed_and_costs_no_other(hall: tuple[Desk, Recorder], spoil: Any) -> None:
    worker, recorder = hall
    broken, *others = adoptions(worker, recorder)
    adopter = desk(incarnation=2)
    broken = spoil(broken)
    adopter.handle(EngineSaid(broken))
    assert adopter.commands(CloseTransport) == [CloseTransport(broken.transport)]
    assert not adopter.all(Announce)
    for other in others:
        adopter.handle(EngineSaid(other))
    assert len(adopter.control.sessions) == 2
    assert adopter.control.counters.values["millrace_sessions_given_up_total"] == 1


def test_two_records_with_one_log_are_not_both_believed(hall: tuple[Desk, Recorder]) -> None:
    worker, recorder = hall
    first = adoptions(worker, recorder)[0]
    adopter = successor([first, first], done=False)
    assert adopter.commands(CloseTransport)
    assert len(adopter.control.sessions) == 1


def remote() -> tuple[Desk, Desk, Recorder]:
    """A publisher on worker 1, and its viewer on worker 0."""
    one, two, recorder = desk(slot=1), desk(slot=0), Recorder()
    one.publish()
    told(one, two)
    two.watch()
    recorder.see(two)
    return one, two, recorder


def test_an_adopted_viewer_stays_attached_while_the_directory_fills() -> None:
    one, two, recorder = remote()
    adopter = successor(adoptions(two, recorder))
    assert not adopter.control.has_converged
    adopter.handle(SlotChanged(Slot(1), Incarnation(1)))
    adopter.handle(Ticked())
    assert not adopter.control.has_converged
    adopter.handle(SnapshotHeard(one.control.snapshot()))
    assert adopter.control.has_converged
    assert not adopter.commands(Attach)
    assert not adopter.commands(Detach)
    adopter.handle(RoomsAsked(RequestId(7)))
    assert body(adopter.reply())[0]["publishers"][0]["slot"] == 1


def test_an_adopted_viewer_is_detached_when_its_publisher_is_gone_for_good() -> None:
    _, two, recorder = remote()
    adopter = successor(adoptions(two, recorder))
    adopter.handle(SlotChanged(Slot(1), None))
    adopter.handle(Ticked())
    assert not adopter.control.has_converged
    adopter.now += CONVERGENCE_SECONDS
    adopter.handle(Ticked())
    assert adopter.control.has_converged
    assert len(adopter.commands(Detach)) == 2


def test_a_first_start_settles_when_all_were_heard() -> None:
    worker = desk()
    worker.handle(EngineSaid(AdoptionDone(0, 0)))
    assert not worker.control.has_converged
    worker.handle(Ticked())
    assert worker.control.has_converged
    assert not worker.all(SessionsAdopted)


def test_an_adopted_publisher_that_published_again_elsewhere_is_replaced() -> None:
    worker, recorder = desk(), Recorder()
    worker.publish()
    recorder.see(worker)
    (session,) = worker.control.sessions.all()
    adopter = successor(adoptions(worker, recorder))
    newer = ParticipantHere(session.room, session.participant, session.id, True, session.opened_at + 1)
    other = desk(slot=1)
    other.publish()
    snapshot = replace(other.control.snapshot(), facts=(replace(newer, session=other.control.sessions.all()[0].id),))
    adopter.handle(SnapshotHeard(snapshot))
    assert [ended.cause for ended in adopter.all(SessionEnded)] == ["replaced"]


def test_a_transport_that_fails_ends_the_session_with_its_cause() -> None:
    worker = desk()
    worker.publish()
    (opened,) = worker.commands(OpenTransport)
    worker.handle(EngineSaid(TransportClosed(opened.transport, Cause.NO_STUN)))
    assert not worker.commands(CloseTransport)
    assert [ended.cause for ended in worker.all(SessionEnded)] == ["no_stun"]
    assert worker.control.counters.values['millrace_sessions_failed_total{cause="no_stun"}'] == 1
    assert not worker.control.directory.view()


def test_a_transport_that_the_peer_closed_has_not_failed() -> None:
    worker = desk()
    worker.publish()
    (opened,) = worker.commands(OpenTransport)
    worker.handle(EngineSaid(TransportClosed(opened.transport, Cause.CLOSED_BY_PEER)))
    failed = {name: n for name, n in worker.control.counters.values.items() if "failed" in name and n}
    assert (len(worker.control.sessions), failed) == (0, {})


def test_the_engines_word_of_a_session_that_is_over_is_passed_over() -> None:
    worker = desk()
    reply = worker.publish()
    (opened,) = worker.commands(OpenTransport)
    worker.handle(Deleted(worker.number(), session_of(reply), None))
    assert worker.handle(EngineSaid(TransportClosed(opened.transport, Cause.CLOSED))) == []
    # Its client had left a moment before.
    assert worker.handle(EngineSaid(CommandFailed("CloseTransport", opened.transport, "no such transport"))) == []
    assert worker.control.counters.values["millrace_commands_refused_total"] == 0


def test_a_command_that_the_engine_refused_ends_its_session() -> None:
    worker = desk()
    worker.publish()
    publish = worker.commands(Publish)[0]
    worker.handle(EngineSaid(CommandFailed("Publish", publish.publication, "no such log")))
    assert [refused.reason for refused in worker.all(EngineRefused)] == ["no such log"]
    assert len(worker.commands(CloseTransport)) == 1
    assert worker.control.counters.values['millrace_sessions_failed_total{cause="engine_refused"}'] == 1


def test_a_track_that_ended_is_withdrawn_until_it_sends_again() -> None:
    worker = desk()
    session = session_of(worker.publish())
    publish, here = worker.commands(Publish)[1], facts(worker)[2]
    for _ in range(2):
        worker.handle(EngineSaid(PublicationEnded(publish.publication)))
    assert worker.effects == []
    assert here not in worker.control.directory.view()
    worker.handle(EngineSaid(PublicationStarted(publish.publication)))
    assert facts(worker) == [here]
    worker.handle(EngineSaid(PublicationEnded(publish.publication)))
    assert [type(fact) for fact in facts(worker)] == [PublicationGone]
    worker.handle(Deleted(worker.number(), session, None))
    assert [type(fact) for fact in facts(worker)] == [PublicationGone, ParticipantGone]
