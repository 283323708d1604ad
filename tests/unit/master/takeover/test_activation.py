"""What the service manager hands over at the start, sorted."""

import os
import socket
from pathlib import Path

import pytest

from millrace.master.takeover.activation import received


def environment(names: str, count: int, pid: int | None = None) -> dict[str, str]:
    return {"LISTEN_PID": str(pid or os.getpid()), "LISTEN_FDS": str(count), "LISTEN_FDNAMES": names, "OTHER": "stays"}


def consecutive(*descriptors: int) -> int:
    """Copies side by side, as they are passed; the first one's number."""
    first = 700
    for offset, each in enumerate(descriptors):
        os.dup2(each, first + offset)
    return first


def test_what_was_kept_goes_by_name_and_the_rest_are_sockets(tmp_path: Path) -> None:
    with socket.socket() as bound, (tmp_path / "arena").open("w") as arena, (tmp_path / "other").open("w") as other:
        bound.bind(("127.0.0.1", 0))
        first = consecutive(bound.fileno(), arena.fileno(), other.fileno())
        variables = environment("http.socket:millrace-arena:connection", 3)
        taken = received(variables, first)
        assert variables == {"OTHER": "stays"}
        assert taken.stored == {"arena": first + 1}
        assert [each.getsockname() for each in taken.activated] == [bound.getsockname()]
        assert not os.get_inheritable(first + 1)
        taken.activated[0].close()
        os.close(first + 1)
        os.close(first + 2)


@pytest.mark.parametrize("variables", [{}, environment("a", 1, pid=1), {"LISTEN_PID": str(os.getpid())}])
def test_what_is_not_meant_for_us_is_left_alone(variables: dict[str, str]) -> None:
    taken = received(variables)
    assert (taken.stored, taken.activated) == ({}, ())
    assert not variables.keys() & {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}
