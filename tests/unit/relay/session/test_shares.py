"""Whose session makes room on a full worker."""

from dataclasses import dataclass
from typing import cast

import pytest

from millrace.relay.session.sessions import Session
from millrace.relay.session.shares import PATIENCE_SECONDS, makes_room, source_of

NOW = 1_000.0


@dataclass
class Waiting:
    """As much of a session as the rule looks at."""

    participant: str
    source: str = "192.0.2.1"
    opened_at: float = NOW - PATIENCE_SECONDS
    connected: bool = False
    leaving: object = None


def room(newcomer: Waiting, *sessions: Waiting) -> Waiting | bool:
    return cast("Waiting | bool", makes_room(cast("Session", newcomer), cast("tuple[Session, ...]", sessions), NOW))


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("", ""),
        ("a name", ""),
    ],
)
def test_a_source_is_an_address_or_the_network_of_one_subscriber(address: str, source: str) -> None:
    assert source_of(address) == source


def test_the_oldest_of_the_identity_that_has_most_makes_room() -> None:
    one, oldest, next_one = Waiting("ben"), Waiting("ann"), Waiting("ann")
    assert room(Waiting("cleo"), one, oldest, next_one) is oldest


def test_where_each_has_its_identity_the_address_that_has_most_makes_room() -> None:
    sessions = [Waiting(f"guest {number}", source="192.0.2.9") for number in range(3)]
    assert room(Waiting("cleo", source="192.0.2.1"), Waiting("ben"), *sessions) is sessions[0]


def test_an_identity_counts_before_its_address() -> None:
    # Of a school or an unnamed proxy all have one address.
    sessions = [Waiting("ben"), Waiting("ann"), Waiting("ann")]
    assert room(Waiting("cleo"), *sessions) is sessions[1]
    # The greedy one has three identities of its own, and an honest one of another address has two sessions.
    many = [Waiting(f"guest {number}", source="192.0.2.9") for number in range(3)]
    assert room(Waiting("cleo"), Waiting("ann"), Waiting("ann"), *many) is many[0]


def test_whose_own_share_is_the_largest_waits() -> None:
    assert room(Waiting("ann"), Waiting("ann"), Waiting("ben")) is True
    assert room(Waiting("ann"), Waiting("ben")) is not True


def test_a_session_that_came_a_moment_ago_makes_room_for_nobody() -> None:
    young = Waiting("ann", opened_at=NOW - PATIENCE_SECONDS + 0.1)
    old = Waiting("ann")
    assert room(Waiting("cleo"), young, Waiting("ann", opened_at=NOW), Waiting("ben")) is False
    assert room(Waiting("cleo"), young, old, Waiting("ben")) is old


def test_who_is_connected_or_leaves_counts_for_nothing() -> None:
    connected = [Waiting("ann", connected=True) for _ in range(5)]
    leaving = [Waiting("ann", leaving="slot 1") for _ in range(5)]
    waiting = Waiting("ben")
    assert room(Waiting("cleo"), *connected, *leaving) is False
    assert room(Waiting("ann", source="192.0.2.2"), *connected, *leaving, waiting) is waiting
