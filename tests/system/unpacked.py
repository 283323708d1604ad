"""Servers of others that tests run: Debian's, which `make setup` has unpacked, else those on PATH. It must never know
what is tested. Read next: `scripts/test-servers.sh`.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from tests.system.relay_process import ROOT

FOLDER = ROOT / ".test-servers"


def program(name: str) -> str:
    """Returns where it is."""
    for folder in ("usr/sbin", "usr/bin"):
        if (FOLDER / folder / name).exists():
            return str(FOLDER / folder / name)
    found = shutil.which(name)
    assert found, f"{name} is missing; `make setup` unpacks it"
    return found


def environment(home: Path) -> Mapping[str, str]:
    """Returns what it needs to find its libraries, and a folder in which it may write."""
    libraries = {str(path.parent) for path in FOLDER.rglob("*.so*")}
    return {"HOME": str(home), "PATH": os.defpath, "LD_LIBRARY_PATH": ":".join(sorted(libraries))}
