"""`make check-install`: what a newcomer does on a fresh Debian, in a Debian of its own, and how long it takes. Needs
root, Debian's `debootstrap`, and a mirror. It must never install what `make run` should. Read next:
`scripts/debian-packages.sh`.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from tests.system.relay_process import free_port

TREE = Path(__file__).parents[2]
ROOTS = TREE / "tests" / "artifacts" / "fresh"
RELEASES = ("bookworm", "trixie")
CERTIFICATES = Path("usr/local/share/ca-certificates")
"""Of who signs for the mirrors that this machine reaches, beyond those that Debian knows."""
PASSED_ON = ("http_proxy", "https_proxy", "no_proxy", "PIP_CERT", "NODE_EXTRA_CA_CERTS")
MOST_SECONDS = 1800
INSIDE = """
mount -t proc proc "$0/proc"
mount --rbind /dev "$0/dev"
mount --rbind /sys "$0/sys"
exec chroot "$0" env -i HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
"""


def fresh(release: str) -> Path:
    """The root of a Debian as its installer leaves it, with `git` and `make`, and this tree's last commit in it."""
    base = ROOTS / release
    if not (base / "usr").exists():
        base.mkdir(parents=True, exist_ok=True)
        _run("debootstrap", "--variant=minbase", release, str(base))
        sources = base / "etc" / "apt" / "sources.list"
        main = sources.read_text().splitlines()[0]
        security = main.replace("/debian ", "/debian-security ").replace(f" {release} ", f" {release}-security ")
        sources.write_text(f"{main}\n{security}\n")
    root = ROOTS / f"{release}-now"
    shutil.rmtree(root, ignore_errors=True)
    _run("cp", "-a", str(base), str(root))
    shutil.copytree(Path("/") / CERTIFICATES, root / CERTIFICATES, dirs_exist_ok=True)
    shutil.copy("/etc/resolv.conf", root / "etc" / "resolv.conf")
    install = "DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends git make >/dev/null"
    with _start(root, f"apt-get update -qq && {install}") as installing:
        assert installing.wait() == 0, "apt-get"
    _run("git", "clone", "-q", str(TREE), str(root / "root" / "millrace"))
    return root


def check(release: str, then: str) -> None:
    """Raises when the relay does not serve in the end, or `then`, a command line, fails."""
    root = fresh(release)
    http, admin = (free_port(socket.SOCK_STREAM) for _ in range(2))
    ports = f"--set http.port={http} --set admin.port={admin} --set media.port={free_port(socket.SOCK_DGRAM)}"
    began = time.monotonic()
    with _start(root, f"cd ~/millrace && exec make run ARGS='{ports}'") as running:
        try:
            while not _is_ready(admin):
                assert running.poll() is None, f"{release}: make run ended with {running.returncode}"
                assert time.monotonic() < began + MOST_SECONDS, f"{release}: nothing serves"
                time.sleep(0.5)
            print(f"{release}: `make run` serves after {time.monotonic() - began:.0f} s", flush=True)
        finally:
            # With it all that runs in there.
            running.kill()
    if then:
        began = time.monotonic()
        with _start(root, f"cd ~/millrace && {then}") as running:
            assert running.wait() == 0, f"{release}: {then}"
        print(f"{release}: `{then}` took {time.monotonic() - began:.0f} s", flush=True)
    # Gigabytes, and looked at only when something failed.
    shutil.rmtree(root)


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _start(root: Path, line: str) -> subprocess.Popen[bytes]:
    """A shell line in there: its file system and its processes, our network."""
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", INSIDE, str(root)]
    command += [f"{name}={os.environ[name]}" for name in PASSED_ON if name in os.environ]
    return subprocess.Popen([*command, "sh", "-c", line], stdin=subprocess.DEVNULL)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"


def main() -> None:
    """`check_install [RELEASE [COMMAND]]`: one release or both, and what is to be tried after that."""
    for release in sys.argv[1:2] or RELEASES:
        check(release, *(sys.argv[2:3] or [""]))


if __name__ == "__main__":
    main()
