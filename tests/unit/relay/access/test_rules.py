import pytest

from millrace.relay.access.rules import is_named, is_within


@pytest.mark.parametrize(
    ("room", "pattern", "fits"),
    [
        ("lobby", "lobby", True),
        ("lobby2", "lobby", False),
        ("Lobby", "lobby", False),
        ("public-1", "public-*", True),
        ("public-", "public-*", True),
        ("public", "public-*", False),
        ("my-public-1", "public-*", False),
        ("a-live", "*-live", True),
        ("a-live-b", "*-live", False),
        ("ab", "ab*ba", False),
        ("aba", "ab*ba", False),
        ("abba", "ab*ba", True),
        ("ab-ba", "ab*ba", True),
        ("anything", "*", True),
        ("a.c", "a.c", True),
        ("abc", "a.c", False),
    ],
)
def test_a_pattern_names_rooms(room: str, pattern: str, fits: bool) -> None:
    assert is_named(room, [pattern]) is fits


def test_one_of_several_patterns_is_enough() -> None:
    assert is_named("b", ("a", "b"))
    assert not is_named("c", ("a", "b"))
    assert not is_named("c", ())


@pytest.mark.parametrize(
    ("address", "is_inside"),
    [
        ("192.168.7.1", True),
        ("192.168.8.1", False),
        ("10.0.0.1", True),
        ("10.0.0.2", False),
        ("::ffff:192.168.7.1", True),
        ("2001:db8:1::5", True),
        ("2001:db8:2::5", False),
        ("::1", False),
        ("", False),
        ("nowhere", False),
        ("192.168.7.1, 8.8.8.8", False),
    ],
)
def test_an_address_is_within_a_listed_network(address: str, is_inside: bool) -> None:
    assert is_within(address, ("192.168.7.0/24", "10.0.0.1", "2001:db8:1::/48")) is is_inside
