"""Both languages agree on the arena, and bad parameters are named."""

import mmap
from dataclasses import astuple, fields, replace
from pathlib import Path

import pytest

from relay import layout
from relay.layout import ArenaParameters, slot_offsets

_LINES = (Path(__file__).parent.parent / "contract" / "arena_layout.txt").read_text().splitlines()
GOLDEN = dict(line.split(" ", 1) for line in _LINES)


def golden_parameters(which: str) -> ArenaParameters:
    return ArenaParameters(*map(int, GOLDEN[f"{which}.parameters"].split()))


SMALL = golden_parameters("small")


@pytest.mark.parametrize("which", ["small", "large"])
def test_both_languages_agree_on_the_size(which: str) -> None:
    parameters = golden_parameters(which)
    assert parameters.problems() == []
    assert parameters.size() == int(GOLDEN[f"{which}.size"])


def test_both_languages_agree_on_the_header() -> None:
    assert SMALL.header(0x0123456789ABCDEF).hex() == GOLDEN["small.header"]


def test_both_languages_agree_on_the_slot_table() -> None:
    offsets = slot_offsets(3)
    named = {field.name: getattr(offsets, field.name) for field in fields(offsets)}
    assert named == {name: int(GOLDEN[f"slot.3.{name}"]) for name in named}


def test_every_slot_word_is_aligned_so_that_a_store_is_whole() -> None:
    assert all(offset % 8 == 0 for slot in range(64) for offset in astuple(slot_offsets(slot)))


def test_a_word_written_is_the_word_read_and_touches_no_other() -> None:
    with mmap.mmap(-1, SMALL.size()) as arena, memoryview(arena) as view:
        offsets = slot_offsets(1)
        layout.write_word(view, offsets.pid, 2**64 - 1)
        assert layout.read_word(view, offsets.pid) == 2**64 - 1
        assert (layout.read_word(view, offsets.incarnation), layout.read_word(view, offsets.state)) == (0, 0)


def test_every_bad_parameter_is_named_at_once() -> None:
    bad = replace(SMALL, slots=65, log_packets=100, session_bytes=65)
    assert [problem.split()[0] for problem in bad.problems()] == ["slots", "log_packets", "session_bytes"]
