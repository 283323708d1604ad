"""A worker that is full of sessions that do not connect takes honest clients, and only then asks who has how many."""

from dataclasses import replace

import pytest

from millrace.relay.access.grants import make_token
from millrace.relay.config.model import AuthConfig, Config, LimitsConfig
from millrace.relay.contract.commands import CloseTransport
from millrace.relay.contract.effects import SessionEnded
from millrace.relay.contract.events import TransportConnected
from millrace.relay.contract.inputs import EngineSaid, Offered
from millrace.relay.contract.protocol import Protocol
from millrace.relay.session.shares import PATIENCE_SECONDS, source_of
from tests.unit.control_kit import Desk, body, desk, header, offer

SECRET = "s" * 32
LIMITS = LimitsConfig(sessions_per_worker=10)
OPEN = Config(limits=LIMITS)
LOCKED = replace(OPEN, auth=AuthConfig(keys={"key": SECRET}))


def join(worker: Desk, address: str, identity: str | None = None) -> int:
    token = identity and make_token("key", SECRET, identity=identity, room="hall", expires_at=2e9)
    sdp = offer(direction="recvonly", codecs="both")
    worker.handle(Offered(worker.number(), Protocol.WHEP, "hall", token, sdp, None, address))
    return worker.reply().status


def connect_all(worker: Desk) -> None:
    for session in worker.control.sessions.all():
        worker.handle(EngineSaid(TransportConnected(session.transport, "aes", "1.2", 1)))


def filled(config: Config, address: str, identity: str | None = None) -> Desk:
    worker = desk(config)
    assert {join(worker, address, identity) for _ in range(10)} == {201}
    worker.now += PATIENCE_SECONDS
    return worker


def test_one_token_that_fills_a_worker_keeps_nobody_out_of_its_own_address() -> None:
    worker = filled(LOCKED, "192.0.2.1", "flood")
    oldest = worker.control.sessions.all()[0]
    assert join(worker, "192.0.2.1", "flood") == 429
    assert header(worker.reply(), "Retry-After") == "5"
    assert body(worker.reply())["type"].endswith("over-share")
    assert join(worker, "192.0.2.1", "ann") == 201
    assert [ended.session for ended in worker.all(SessionEnded)] == [oldest.id]
    assert [closed.transport for closed in worker.commands(CloseTransport)] == [oldest.transport]
    assert len(worker.control.sessions) == 10
    assert worker.control.counters.values["millrace_sessions_evicted_total"] == 1


def test_one_address_without_tokens_keeps_no_other_address_out() -> None:
    worker = filled(OPEN, "2001:db8::1")
    assert [join(worker, f"192.0.2.{number}") for number in range(1, 6)] == [201] * 5
    assert sum(session.source == "192.0.2.1" for session in worker.control.sessions.all()) == 1
    assert sum(session.source == "2001:db8::/64" for session in worker.control.sessions.all()) == 5


def test_session_that_is_connected_or_had_no_time_yet_makes_room_for_nobody() -> None:
    worker = filled(LOCKED, "192.0.2.1", "flood")
    connect_all(worker)
    assert join(worker, "192.0.2.2", "ann") == 503
    worker = filled(LOCKED, "192.0.2.1", "flood")
    worker.now -= PATIENCE_SECONDS / 2
    assert join(worker, "192.0.2.2", "ann") == 503
    assert len(worker.control.sessions) == 10


def test_what_was_refused_keeps_no_number() -> None:
    worker = filled(LOCKED, "192.0.2.1", "flood")
    worker.now -= PATIENCE_SECONDS / 2
    token = make_token("key", SECRET, identity="ann", room="hall", expires_at=2e9)
    for _ in range(1100):
        assert worker.publish(token=token).status == 503
    worker.now += PATIENCE_SECONDS
    assert worker.publish(token=token).status == 201


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("unix:", ""),
    ],
)
def test_source_is_an_address_or_an_ipv6_prefix(address: str, source: str) -> None:
    assert source_of(address) == source
