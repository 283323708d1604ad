"""When changed addresses are looked at."""

from collections.abc import Iterator

import pytest

from millrace.master.kernel.address_changes import LONGEST_SECONDS, SETTLE_SECONDS, AddressChanges


class Told(AddressChanges):
    """What a test says that the kernel has told."""

    def __init__(self) -> None:
        super().__init__()
        self.is_told = False

    def _is_heard(self) -> bool:
        return self.is_told


@pytest.fixture
def changes() -> Iterator[Told]:
    made = Told()
    yield made
    made.close()


def hear(changes: Told, now: float, is_told: bool = True) -> float | None:
    changes.is_told = is_told
    changes.hear(now)
    return changes.look_at()


def test_without_a_change_nothing_is_looked_at(changes: Told) -> None:
    assert hear(changes, 5.0, is_told=False) is None


def test_a_change_is_looked_at_when_no_other_follows(changes: Told) -> None:
    assert hear(changes, 5.0) == 5.0 + SETTLE_SECONDS
    assert hear(changes, 5.2) == 5.2 + SETTLE_SECONDS
    assert hear(changes, 5.4, is_told=False) == 5.2 + SETTLE_SECONDS
    changes.looked()
    assert changes.look_at() is None


def test_changes_without_end_are_looked_at_all_the_same(changes: Told) -> None:
    found = [hear(changes, 5.0 + number / 10) for number in range(100)]
    assert max(each for each in found if each is not None) == 5.0 + LONGEST_SECONDS


def test_it_may_be_looked_at_again_without_a_change(changes: Told) -> None:
    changes.look_again(7.0)
    assert changes.look_at() == 7.0


def test_the_kernel_is_asked_without_waiting() -> None:
    changes = AddressChanges()
    changes.hear(1.0)
    assert changes.look_at() is None
    changes.close()
