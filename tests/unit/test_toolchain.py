"""What `make` says when Python or cargo is missing or too old."""

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "toolchain.sh"


def program(path: Path, says: str, status: int = 0) -> str:
    path.write_text(f"#!/bin/sh\necho '{says}'\nexit {status}\n")
    path.chmod(0o755)
    return str(path)


def said(*arguments: str, path: str = "") -> tuple[int, str]:
    environment = {"PATH": f"{path}:/usr/bin:/bin"}
    done = subprocess.run(
        ["/bin/bash", SCRIPT, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(("python", "cargo"), [("3.11.0", "1.89.0"), ("3.13.1", "1.100.0"), ("4.0.0", "2.0.0")])
def test_what_is_new_enough_is_not_spoken_of(tmp_path: Path, python: str, cargo: str) -> None:
    assert said(program(tmp_path / "p", python), program(tmp_path / "c", f"cargo {cargo} (abc 2026-01-01)")) == (0, "")


def test_each_that_is_too_old_gets_one_line_with_what_was_found_and_how_to_get_it(tmp_path: Path) -> None:
    python, cargo = program(tmp_path / "p", "3.9.2"), program(tmp_path / "c", "cargo 1.65.0")
    status, text = said(python, cargo)
    assert status == 1
    first, second = text.splitlines()
    assert first.startswith(f"PYTHON={python}: found 3.9.2, expected Python 3.11 or later: ")
    assert second.startswith(f"{cargo}: found 1.65.0, expected cargo 1.89 or later: ")


def test_each_that_is_missing_gets_one_line(tmp_path: Path) -> None:
    status, text = said(str(tmp_path / "python9"), program(tmp_path / "c", "no toolchain", status=1))
    assert status == 1
    assert [": found none that runs, expected " in line for line in text.splitlines()] == [True, True]


def test_3_11_is_taken_first_else_any_later_one(tmp_path: Path) -> None:
    program(tmp_path / "python3.11", "3.11.2")
    program(tmp_path / "python3", "3.13.0")
    assert said("find-python", path=str(tmp_path)) == (0, "python3.11\n")
    program(tmp_path / "python3.11", "a shim of nothing", status=127)
    assert said("find-python", path=str(tmp_path)) == (0, "python3\n")
    program(tmp_path / "python3", "3.9.2")
    program(tmp_path / "python3.12", "3.12.4")
    assert said("find-python", path=str(tmp_path)) == (0, "python3.12\n")
