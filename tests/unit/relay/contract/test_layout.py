"""Both languages agree on the arena, and every word of it is read and written whole."""

import mmap
import os
import signal
import time
from dataclasses import astuple, fields
from pathlib import Path

import pytest

from millrace.relay.contract import layout
from millrace.relay.contract.layout import ArenaParameters, slot_offsets

_LINES = (Path(__file__).parents[3] / "contract" / "arena_layout.txt").read_text().splitlines()
GOLDEN = dict(line.split(" ", 1) for line in _LINES)


def golden_parameters(which: str) -> ArenaParameters:
    return ArenaParameters(*map(int, GOLDEN[f"{which}.parameters"].split()))


SMALL = golden_parameters("small")


@pytest.mark.parametrize("which", ["small", "large"])
def test_both_languages_agree_on_the_size(which: str) -> None:
    parameters = golden_parameters(which)
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


def test_a_word_that_another_process_writes_is_read_whole() -> None:
    """A beat that reads as zero while it is written has its worker killed."""
    values = (2**64 - 1, 1 << 63 | 1)
    with mmap.mmap(-1, mmap.PAGESIZE) as arena, memoryview(arena) as view:
        layout.write_word(view, 8, values[0])
        writer = os.fork()
        if writer == 0:
            signal.alarm(60)
            while True:
                for value in values:
                    layout.write_word(view, 8, value)
        try:
            read, deadline = set[int](), time.monotonic() + 30
            # On a busy machine the writer begins late.
            while not read >= set(values) and time.monotonic() < deadline:
                read |= {layout.read_word(view, 8) for _ in range(100_000)}
            read |= {layout.read_word(view, 8) for _ in range(300_000)}
        finally:
            os.kill(writer, signal.SIGKILL)
            os.waitpid(writer, 0)
    assert read == set(values)
