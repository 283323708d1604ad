"""What is written, dropped and told when a descriptor takes only so much."""

import os
from collections.abc import Iterator
from contextlib import suppress

import pytest

from millrace.workers.lines import Lines, Outlet


class Pipe:
    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)
        self.lines = Lines(Outlet(self.writing), lambda count: f"dropped {count}\n".encode())

    def fill(self) -> None:
        os.set_blocking(self.writing, False)
        with suppress(BlockingIOError):
            while True:
                os.write(self.writing, b"." * 4096)
        os.set_blocking(self.writing, True)

    def read(self) -> bytes:
        taken = b""
        with suppress(BlockingIOError):
            while piece := os.read(self.reading, 1 << 20):
                taken += piece
        return taken.lstrip(b".")


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    os.close(made.reading)
    os.close(made.writing)


def test_lines_that_a_full_pipe_does_not_take_are_counted_and_told_once_it_takes_more(pipe: Pipe) -> None:
    pipe.lines.write(b"first\n")
    assert pipe.read() == b"first\n"
    pipe.fill()
    for _ in range(3):
        pipe.lines.write(b"lost\n")
    assert not pipe.lines.tell_dropped()
    assert (pipe.lines.newly_dropped(), pipe.lines.newly_dropped()) == (3, 0)
    pipe.read()
    pipe.lines.write(b"next\n")
    assert pipe.read() == b"dropped 3\nnext\n"
    assert pipe.lines.tell_dropped()
    assert pipe.read() == b""


def test_line_longer_than_what_a_pipe_has_left_ends_where_a_line_ends(pipe: Pipe) -> None:
    long = b"".join(b"%07d\n" % number for number in range(20_000))
    pipe.lines.write(long)
    taken = pipe.read()
    assert 0 < len(taken) < len(long)
    assert long.startswith(taken)
    assert taken.endswith(b"\n")
    pipe.lines.write(b"next\n")
    assert pipe.read() == b"dropped 1\nnext\n"


def test_reader_that_is_gone_costs_the_lines_alone(pipe: Pipe) -> None:
    reader, pipe.reading = pipe.reading, os.open(os.devnull, os.O_RDONLY)
    os.close(reader)
    pipe.lines.write(b"lost\n")
    assert pipe.lines.newly_dropped() == 1
