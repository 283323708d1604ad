"""Descriptors that one program passes to the next over an exec."""

import json
import os
import sys
from pathlib import Path

from millrace.master.takeover.reexec import Executable

PRINTS = "import os, sys; print(os.environ['MILLRACE_DESCRIPTORS'], os.read({descriptor}, 5).decode())"


def test_descriptors_that_only_another_release_knows_are_passed_on(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"theirs"[:5])
    executable = Executable(
        (sys.executable, "-c", PRINTS.format(descriptor=reading)), tmp_path, {"mine": [1], "theirs": [reading]}, False
    )
    executable.pass_on_all_but(("mine",))
    out = tmp_path / "out"
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT), 1)
            executable.become({"mine": [0]}, {})
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    passed, _, told = out.read_text().strip().rpartition(" ")
    assert json.loads(passed) == {"theirs": [reading], "mine": [0]}
    assert told == "their"
    os.close(reading)
    os.close(writing)
