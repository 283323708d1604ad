"""What `make` says when something that building needs is missing or too old, and what it has apt install."""

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
BUILD_PACKAGES = "ca-certificates gcc libc6-dev libssl-dev pkg-config python3-venv"
USED = ("bash", "cut", "dirname", "env", "grep", "head", "sed", "sort")
"""All that the scripts themselves use of a system."""


def program(path: Path, says: str, status: int = 0) -> str:
    path.write_text(f"#!/bin/sh\necho '{says}'\nexit {status}\n")
    path.chmod(0o755)
    return str(path)


def ran(script: str, *arguments: str, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        ["/bin/bash", SCRIPTS / script, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def said(*arguments: str, path: str = "") -> tuple[int, str]:
    return ran("toolchain.sh", *arguments, PATH=f"{path}:/usr/bin:/bin")


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder for PATH: a system with neither compiler nor apt."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in USED:
        found = shutil.which(name, path="/usr/bin:/bin")
        assert found is not None
        (folder / name).symlink_to(found)
    return folder


class Debian:
    """Stand-ins for apt and dpkg, and what they were asked."""

    def __init__(self, folder: Path, state: Path) -> None:
        self._folder = folder
        self._state = state
        state.mkdir()
        program(folder / "id", "0")
        self.offer("1.96.0+dfsg1-1~deb12u2")
        log = state / "log"
        log.touch()
        self._script("apt-get", f'echo "$*" >> {log}')
        self._script("dpkg-query", f'for last; do :; done; [ ! -e {state}/"$last" ] || echo "install ok installed"')

    def _script(self, name: str, line: str) -> None:
        (self._folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (self._folder / name).chmod(0o755)

    def offer(self, cargo_web: str) -> None:
        self._script("apt-cache", f"echo 'cargo-web:\n  Installed: (none)\n  Candidate: {cargo_web}'")

    def have(self, *packages: str) -> None:
        for package in packages:
            (self._state / package).touch()

    def installed(self, what: str, cargo: str) -> str:
        """The packages that apt was told to install, in order."""
        status, text = ran("debian-packages.sh", what, PATH=str(self._folder), CARGO=cargo)
        assert status == 0, text
        lines = [line for line in (self._state / "log").read_text().splitlines() if " install " in f" {line} "]
        return " ".join(word for line in lines for word in line.split()[1:] if not word.startswith("-"))


@pytest.fixture
def debian(bare: Path, tmp_path: Path) -> Debian:
    return Debian(bare, tmp_path / "state")


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


def test_each_that_is_missing_gets_one_line(tmp_path: Path, bare: Path) -> None:
    cargo = program(tmp_path / "c", "no toolchain", status=1)
    status, text = ran("toolchain.sh", "python9", cargo, PATH=str(bare))
    assert status == 1
    assert [line.split(", expected ")[0] for line in text.splitlines()] == [
        "PYTHON=python9: found none that runs",
        f"{cargo}: found none that runs",
        "cc: found none that runs",
        "OpenSSL's headers: found none by pkg-config",
    ]


def test_headers_of_openssl_may_be_anywhere(tmp_path: Path, bare: Path) -> None:
    program(bare / "cc", "cc 12")
    arguments = (program(tmp_path / "p", "3.11.2"), program(tmp_path / "c", "cargo 1.89.0"))
    assert ran("toolchain.sh", *arguments, PATH=str(bare))[0] == 1
    assert ran("toolchain.sh", *arguments, PATH=str(bare), OPENSSL_DIR="/opt/ssl") == (0, "")


def test_a_python_without_venv_is_named(tmp_path: Path) -> None:
    python = tmp_path / "p"
    python.write_text('#!/bin/sh\ncase "$2" in *venv*) exit 1 ;; *) echo 3.11.2 ;; esac\n')
    python.chmod(0o755)
    status, text = said(str(python), program(tmp_path / "c", "cargo 1.89.0"))
    assert status == 1
    assert text.startswith(f"PYTHON={python}: found no `venv`, expected one with pip: ")


def test_3_11_is_taken_first_else_any_later_one(tmp_path: Path) -> None:
    program(tmp_path / "python3.11", "3.11.2")
    program(tmp_path / "python3", "3.13.0")
    assert said("find-python", path=str(tmp_path)) == (0, "python3.11\n")
    program(tmp_path / "python3.11", "a shim of nothing", status=127)
    assert said("find-python", path=str(tmp_path)) == (0, "python3\n")
    program(tmp_path / "python3", "3.9.2")
    program(tmp_path / "python3.12", "3.12.4")
    assert said("find-python", path=str(tmp_path)) == (0, "python3.12\n")


def test_a_fresh_debian_gets_all_that_building_needs_and_its_newest_cargo(debian: Debian) -> None:
    assert debian.installed("build", "cargo") == f"{BUILD_PACKAGES} cargo-web"


def test_with_that_cargo_tests_get_its_formatter_and_its_linter(debian: Debian) -> None:
    assert debian.installed("test", "cargo").endswith(" cargo-web rustfmt-web rust-web-clippy")


def test_the_engines_tests_link_python(debian: Debian) -> None:
    assert debian.installed("test-fast", "cargo") == f"{BUILD_PACKAGES} libpython3-dev cargo-web"


def test_what_is_there_is_not_installed_again(debian: Debian, tmp_path: Path) -> None:
    cargo = program(tmp_path / "c", "cargo 1.89.0")
    debian.have(*BUILD_PACKAGES.split()[1:])
    assert debian.installed("build", cargo) == "ca-certificates"


def test_a_cargo_that_is_too_old_is_not_installed(debian: Debian) -> None:
    debian.offer("1.85.0+dfsg3-1~deb12u3")
    assert debian.installed("build", "cargo") == BUILD_PACKAGES
    debian.have(*BUILD_PACKAGES.split())
    debian.offer("(none)")
    assert debian.installed("build", "cargo") == BUILD_PACKAGES, "apt was asked again"


def test_debians_older_cargo_gives_way_and_nobody_elses(debian: Debian, tmp_path: Path) -> None:
    debian.have(*BUILD_PACKAGES.split())
    assert debian.installed("build", program(tmp_path / "c", "cargo 1.80.0")) == ""
    debian.have("rustup")
    assert debian.installed("build", "/usr/bin/false") == ""
    (tmp_path / "state" / "rustup").unlink()
    assert debian.installed("build", "/usr/bin/false") == "cargo-web"


@pytest.mark.usefixtures("debian")
def test_who_may_not_install_is_told_what_is_missing(bare: Path) -> None:
    program(bare / "id", "1000")
    status, text = ran("debian-packages.sh", "build", PATH=str(bare))
    assert (status, text.rstrip().rsplit(": ", 1)[1]) == (1, f"{BUILD_PACKAGES} cargo-web")


def test_without_apt_nothing_is_installed_and_what_tests_need_is_named(bare: Path) -> None:
    assert ran("debian-packages.sh", "build", PATH=str(bare)) == (0, "")
    status, text = ran("debian-packages.sh", "test", PATH=str(bare))
    assert status == 0
    assert " chromium firefox-esr " in text
