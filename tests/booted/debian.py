"""A Debian of its own, booted with systemd, in which Millrace is installed as its unit says. Needs root, and Debian's
`debootstrap` and `systemd-container`. It must never know what is tried there. Read next: `tests/booted/check_unit.py`.
"""

import contextlib
import ctypes
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

TREE = Path(__file__).parents[2]
ROOT = TREE / "tests" / "artifacts" / "debian"
"""Kept: making it takes a minute or two."""
RELEASE = "bookworm"
PACKAGES = "systemd,systemd-sysv,dbus,python3,python3-venv,libssl3,iproute2,procps"
BOOT_SECONDS = 60
NETWORK = """
ip link set lo up
ip link add lan0 type veth peer name lan1
ip address add 10.99.0.1/24 dev lan0
ip link set lan0 up
ip link set lan1 up
ip route add default via 10.99.0.2 dev lan0
"""
"""Some clients leave loopback out, and ask for the route to the Internet to learn their own address."""


class Machine:
    """A booted one."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        """Its process 1, as we see it."""

    def run(self, *words: str, check: bool = True) -> str:
        """A program in there, and what it says."""
        command = ["nsenter", "-t", str(self._pid), "-m", "-u", "-i", "-n", "-p", "--", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def join_network(self) -> None:
        """This thread, and those that it starts from now on, are in the machine's network."""
        with open(f"/proc/{self._pid}/ns/net") as network:
            if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), 0) != 0:
                raise OSError(ctypes.get_errno(), "setns")


def install() -> None:
    """The tree's program as a wheel, its configuration and its unit, as the unit's first lines say."""
    if not (ROOT / "usr").exists():
        _run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", RELEASE, str(ROOT))
    wheels = ROOT / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    python = Path(sys.executable)
    # Not `pip install .` in there: that needs cargo.
    _run(str(python.with_name("maturin")), "build", "--release", "--locked", "--auditwheel", "skip", "-o", str(wheels))
    (wheel,) = wheels.glob("millrace-*.whl")
    _run(str(python), "-m", "pip", "download", "-q", "-d", str(wheels), str(wheel))
    _run("chroot", str(ROOT), "python3", "-m", "venv", "--clear", "/opt/millrace")
    pip = ("/opt/millrace/bin/pip", "install", "-q", "--no-index", "--find-links", "/wheels", "millrace")
    _run("chroot", str(ROOT), *pip)
    _run("chroot", str(ROOT), "sh", "-c", "id millrace 2>&1 || useradd --system --no-create-home millrace")
    folder = ROOT / "etc" / "millrace"
    folder.mkdir(exist_ok=True)
    shutil.copy(TREE / "deploy" / "millrace.example.toml", folder / "millrace.toml")
    _run("chroot", str(ROOT), "chgrp", "millrace", "/etc/millrace/millrace.toml")
    (folder / "millrace.toml").chmod(0o640)
    shutil.copy(TREE / "deploy" / "millrace.service", ROOT / "etc" / "systemd" / "system")


@contextlib.contextmanager
def booted() -> Iterator[Machine]:
    """A network with one address, processes and devices of its own; the capabilities of a real machine's systemd."""
    command = ["systemd-nspawn", "-q", "-D", str(ROOT), "--boot", "--private-network", "--register=no", "--keep-unit"]
    command += ["--capability=all", "--system-call-filter=bpf", "--console=pipe"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True) as box:
        try:
            machine = Machine(_first_process(box.pid))
            machine.run("sh", "-ec", NETWORK)
            machine.run("systemctl", "is-system-running", "--wait", check=False)
            yield machine
        finally:
            # Powers it off in order; its own process 1 gets it as SIGRTMIN+4.
            box.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                box.wait(30)
            box.kill()


def _first_process(pid: int) -> int:
    """Of the machine that process `pid` starts, once systemd listens."""
    end = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < end:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for child in map(int, children):
            with contextlib.suppress(OSError):
                process = Path("/proc", str(child))
                is_systemd = (process / "comm").read_text().strip() == "systemd"
                # Where it is listened to, in the file system that it sees.
                if is_systemd and process.joinpath("root", "run", "systemd", "private").exists():
                    return child
        time.sleep(0.1)
    raise AssertionError("no systemd came up")


def _run(*command: str) -> None:
    done = subprocess.run(command, cwd=TREE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
