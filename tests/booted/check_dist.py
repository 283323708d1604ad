"""`make check-dist`: what `make dist` has made is installed in a fresh Debian without a compiler and without a network,
and serves. Needs root, Debian's `debootstrap`, and a mirror to make that Debian once. It must never build anything.
Read next: `scripts/dist.sh`.
"""

import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.booted.check_install import INSIDE, ROOTS, TREE, _run

DIST = TREE / "dist"
RELEASE = "bookworm"
PACKAGES = "python3,python3-venv,libssl3,adduser"
HTTP, ADMIN, MEDIA = 17_380, 17_389, 17_382
SECONDS = 60
ASK = """
import sys, urllib.request
try:
    for url in sys.argv[1:]:
        urllib.request.urlopen(url, timeout=2).read()
except OSError:
    sys.exit(1)
"""


def fresh() -> Path:
    """A Debian with what the package depends on, and what was built in its /dist."""
    base = ROOTS / f"{RELEASE}-dist"
    if not (base / "usr" / "bin" / "python3").exists():
        base.mkdir(parents=True, exist_ok=True)
        _run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", RELEASE, str(base))
    root = ROOTS / f"{RELEASE}-dist-now"
    shutil.rmtree(root, ignore_errors=True)
    _run("cp", "-a", str(base), str(root))
    shutil.copytree(DIST, root / "dist")
    return root


def does(root: Path, line: str) -> None:
    """A shell line in there, without a network but loopback. Raises when it fails."""
    command = ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "sh", "-ec"]
    command += [f"ip link set lo up\n{INSIDE}", str(root), "sh", "-ec", line]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0, line


def serves(root: Path, program: str) -> None:
    """The program says that it is ready, and shows its page."""
    settings = f"--set http.port={HTTP} --set admin.port={ADMIN} --set media.port={MEDIA} --set workers.count=1"
    urls = f"http://127.0.0.1:{ADMIN}/readyz http://127.0.0.1:{HTTP}/"
    line = f"""
        {program} serve {settings} & server=$!
        for _ in $(seq {SECONDS}); do
            if python3 -c {shlex.quote(ASK)} {urls}; then kill $server; wait $server; exit 0; fi
            sleep 1
        done
        exit 1
    """
    does(root, line)


def said(name: str, began: float) -> None:
    print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)


def check_deb(root: Path) -> None:
    """Installed, read, run, installed over itself, purged."""
    (package,) = DIST.glob("*.deb")
    began = time.monotonic()
    does(root, f"dpkg -i /dist/{package.name} >/dev/null")
    does(root, "test \"$(stat -c '%U:%G %a' /etc/millrace/millrace.toml)\" = 'millrace:millrace 600'")
    does(root, "millrace keys --write /etc/millrace/millrace.toml")
    does(root, "test \"$(stat -c '%U:%G %a' /etc/millrace/millrace.toml)\" = 'millrace:millrace 600'")
    does(root, "millrace check /etc/millrace/millrace.toml && test -e /lib/systemd/system/millrace.service")
    serves(root, "millrace")
    does(root, f"dpkg -i /dist/{package.name} >/dev/null && dpkg --purge millrace >/dev/null")
    does(root, "test ! -e /opt/millrace && test ! -e /etc/millrace && if id millrace 2>/dev/null; then exit 1; fi")
    said(f"{package.name}: installed, served, upgraded, purged", began)


def check_wheel(root: Path) -> None:
    """Installed with the packages that an index would give, run."""
    (wheel,) = DIST.glob(f"*_{platform.machine()}.whl")
    began = time.monotonic()
    # By Debian's Python, whose packages are wanted.
    locked = str(TREE / "requirements" / "run.txt")
    _run("/usr/bin/python3", "-m", "pip", "download", "-q", "-d", str(root / "wheels"), "-r", locked)
    does(root, f"python3 -m venv /venv && /venv/bin/pip install -q --no-index --find-links /wheels /dist/{wheel.name}")
    engine = "/venv/lib/python3*/site-packages/millrace/relay/_engine.abi3.so"
    does(root, f"if ldd {engine} | grep -E 'libssl|libcrypto'; then exit 1; fi")
    serves(root, "/venv/bin/millrace")
    said(f"{wheel.name}: installed, served", began)


def main(chosen: Sequence[str]) -> None:
    """`check_dist [deb|wheel]`: one or both."""
    checks = {"deb": check_deb, "wheel": check_wheel}
    for name in chosen or checks:
        root = fresh()
        checks[name](root)
        shutil.rmtree(root)


if __name__ == "__main__":
    main(sys.argv[1:])
