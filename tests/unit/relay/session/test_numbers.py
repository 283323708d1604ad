import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.relay.contract.ids import Slot
from millrace.relay.session.numbers import Numbers


def numbers(slot: int = 3, logs_per_slot: int = 4) -> Numbers:
    return Numbers(random.Random(7).randbytes, Slot(slot), logs_per_slot)


def test_logs_come_from_the_slots_own_range() -> None:
    ours = numbers(slot=3, logs_per_slot=4)
    assert sorted(ours.log() for _ in range(4)) == [12, 13, 14, 15]
    assert not ours.has_logs(1)


def test_the_log_that_was_free_longest_is_reused_first() -> None:
    ours = numbers(slot=0, logs_per_slot=4)
    first, second = ours.log(), ours.log()
    ours.release_logs([second])
    ours.release_logs([first])
    assert [ours.log() for _ in range(4)] == [2, 3, second, first]


@given(st.lists(st.booleans(), max_size=200))
def test_a_log_is_never_in_use_twice(takes: list[bool]) -> None:
    ours = numbers(logs_per_slot=8)
    used: list[int] = []
    for take in takes:
        if take and ours.has_logs(1):
            log = ours.log()
            assert log not in used
            used.append(log)
        elif used:
            ours.release_logs([used.pop()])
        assert ours.has_logs(8 - len(used))
        assert not ours.has_logs(9 - len(used))


def test_a_log_whose_publication_moved_away_is_not_given_until_it_is_closed() -> None:
    lent = {0, 2}
    ours = Numbers(random.Random(7).randbytes, Slot(0), 4, lent.__contains__)
    assert ours.has_logs(2)
    assert not ours.has_logs(3)
    assert [ours.log(), ours.log()] == [1, 3]
    lent.remove(2)
    assert ours.has_logs(1)
    assert ours.log() == 2
    with pytest.raises(IndexError):
        ours.log()


def test_an_adopted_session_claims_its_logs_and_leaves_another_slots_alone() -> None:
    ours = numbers(slot=1, logs_per_slot=4)
    assert ours.claim([5, 900], [77])
    assert not ours.claim([5], [])
    assert ours.claim([], [77]), "another client's stream"
    ours.release_ssrcs([77])
    ours.release_logs([5, 900])
    assert sorted(ours.log() for _ in range(4)) == [4, 5, 6, 7]
    assert not ours.has_logs(1)


def test_an_ssrc_is_not_given_twice_while_it_is_in_use() -> None:
    chances = iter([b"\0\0\0\0", b"\0\0\0\5", b"\0\0\0\5", b"\0\0\0\6", b"\0\0\0\5"])
    ours = Numbers(lambda count: next(chances), Slot(0), 1)
    assert ours.ssrc() == 5  # 0 is passed over
    assert ours.ssrc() == 6
    ours.release_ssrcs([5])
    assert ours.ssrc() == 5


def test_credentials_name_the_slot_and_are_ice_chars() -> None:
    ours = numbers(slot=63)
    assert re.fullmatch(r"3f[A-Za-z0-9+/]{8}", ours.ice_ufrag())
    assert re.fullmatch(r"[A-Za-z0-9+/]{24}", ours.ice_pwd())


def test_a_session_id_names_the_slot_and_has_128_random_bits() -> None:
    assert re.fullmatch(r"0a\.[A-Za-z0-9_-]{22}", numbers(slot=10).session())


def test_ids_are_positive_in_63_bits() -> None:
    ours = Numbers(lambda count: b"\xff" * count, Slot(0), 1)
    assert ours.transport() == 2**63 - 1
    ours = Numbers(bytes, Slot(0), 1)
    assert ours.publication() == 1
