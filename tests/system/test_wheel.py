"""What a wheel brings into an empty environment: one name, all of the tree's own files, and a server."""

import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.system.relay_process import ROOT, Relay

pytestmark = pytest.mark.system
EXTENSION = "relay/_engine.abi3.so"
BUILD_SECONDS = 900.0
"""Nothing is compiled after `make setup`; where the engine has changed since then, the build is waited for."""


def run(*command: str | Path) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def files(folder: Path) -> set[str]:
    """All below it that no interpreter and no compiler made, but for the engine's sources."""
    found = set()
    for at, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in ("engine", "__pycache__")]
        found |= {str(Path(at, name).relative_to(folder)) for name in names if not name.endswith(".so")}
    return found


@pytest.mark.timeout(BUILD_SECONDS)
async def test_an_installed_wheel_serves_and_brings_one_name_and_every_file(tmp_path: Path) -> None:
    maturin = Path(sys.executable).with_name("maturin")
    run(maturin, "build", "--release", "--locked", "--quiet", "--auditwheel", "skip", "-o", tmp_path / "wheels")
    (wheel,) = (tmp_path / "wheels").iterdir()
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    binaries = tmp_path / "venv" / "bin"
    run(binaries / "pip", "install", "-q", "--require-hashes", "-r", "requirements/run.txt")
    (packages,) = (tmp_path / "venv" / "lib").glob("python3*/site-packages")
    before = set(packages.iterdir())
    # The index stays closed: what was locked is within the wheel's bounds.
    run(binaries / "pip", "install", "-q", "--no-index", wheel)

    brought = {path.name for path in set(packages.iterdir()) - before}
    assert {name.partition("-")[0] for name in brought} == {"millrace"}
    assert len(brought) == 2, f"beside the package its metadata only: {brought}"
    package = packages / "millrace"
    folders = ("relay", "workers", "master")
    assert files(package) == {"__init__.py", *(f"{name}/{path}" for name in folders for path in files(ROOT / name))}
    assert [str(path.relative_to(package)) for path in package.rglob("*.so")] == [EXTENSION]

    async with Relay(workers=1, root=tmp_path, program=[str(binaries / "millrace")]) as relay:
        with urllib.request.urlopen(f"{relay.url}/", timeout=10) as page:
            assert b"Millrace" in page.read()
