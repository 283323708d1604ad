"""A network of its own for a test: loopback, one Ethernet address for clients that leave loopback out, and loss on
demand. It must never know what runs in it. Read next: `tests/browser/conftest.py`, which puts relays into it.
"""

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator

ADDRESS = "10.99.0.1"
"""Of the namespace's Ethernet interface."""

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def network_namespace() -> Iterator[None]:
    """This thread, and every process and thread that it starts meanwhile, are in a new namespace. Needs root."""
    with open("/proc/thread-self/ns/net") as before:
        _call(_libc.unshare, CLONE_NEWNET)
        try:
            _run("ip link set lo up")
            _run("ip link add lan0 type veth peer name lan1")
            _run(f"ip address add {ADDRESS}/24 dev lan0")
            _run("ip link set lan0 up")
            _run("ip link set lan1 up")
            # Some clients ask for the route to the Internet to learn their own address.
            _run("ip route add default via 10.99.0.2 dev lan0")
            yield
        finally:
            _call(_libc.setns, before.fileno(), CLONE_NEWNET)


def lose(percent: int, port: int) -> None:
    """From now on this namespace loses datagrams to and from a port at random."""
    _run("nft add table inet loss")
    _run("nft add chain inet loss arriving { type filter hook input priority 0; }")
    for direction in ("dport", "sport"):
        _run(f"nft add rule inet loss arriving udp {direction} {port} numgen random mod 100 < {percent} counter drop")


def lost() -> str:
    """The rules with their counters."""
    return subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout


def _run(command: str) -> None:
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"


def _call(function: "ctypes._NamedFuncPointer", *arguments: int) -> None:
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
