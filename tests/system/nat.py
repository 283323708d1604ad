"""A client's network behind a NAT that can forget: a namespace beside the test's own, from which datagrams to one port
leave by other ports than the client's. It must never know who is behind it. Read next: `tests/system/namespace.py`.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

CLIENT_ADDRESS = "10.99.0.2"
_PORTS = 1000
"""So many for each time that the NAT forgets."""
_FIRST_PORT = 20_000
"""Below those that the kernel gives to clients."""

_FORGET = """
import socket, struct
# A ctnetlink message that deletes all entries (linux/netfilter/nfnetlink_conntrack.h), with an acknowledgement.
netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
netlink.send(struct.pack("=IHHIIBBH", 20, 1 << 8 | 2, 1 | 4, 1, 0, 0, 0, 0))
assert struct.unpack("=i", netlink.recv(4096)[16:20]) == (0,)
"""


class Nat:
    """What is in front of one namespace; `pid` is of a process in it."""

    def __init__(self, pid: int, port: int) -> None:
        self._pid = pid
        self._port = port
        self._times = 0
        self._run("ip", "link", "set", "lo", "up")
        self._run("ip", "address", "add", f"{CLIENT_ADDRESS}/24", "dev", "lan1")
        self._run("ip", "link", "set", "lan1", "up")
        self._run("nft", "add", "table", "ip", "nat")
        self._run("nft", "add", "chain", "ip", "nat", "out", "{ type nat hook postrouting priority 100; }")
        self._map()

    def inside(self, *command: str) -> list[str]:
        """The command, to be run in the namespace."""
        return ["nsenter", f"--net=/proc/{self._pid}/ns/net", *command]

    @property
    def ports(self) -> range:
        """From where the client's next flow comes."""
        first = _FIRST_PORT + self._times * _PORTS
        return range(first, first + _PORTS)

    def forget(self) -> None:
        """Forgets all flows. The client's next datagram opens a new one, and nothing reaches it by the old one."""
        self._times += 1
        self._run("nft", "flush", "chain", "ip", "nat", "out")
        self._map()
        self._run(sys.executable, "-c", _FORGET)

    def _map(self) -> None:
        ports = f":{self.ports[0]}-{self.ports[-1]}"
        self._run("nft", "add", "rule", "ip", "nat", "out", "udp", "dport", str(self._port), "masquerade", "to", ports)

    def _run(self, *command: str) -> None:
        done = subprocess.run(self.inside(*command), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"


@contextmanager
def behind_nat(port: int) -> Iterator[Nat]:
    """A namespace that reaches the test's own (`network_namespace`) through a NAT, as far as this UDP port goes."""
    ours = os.readlink("/proc/thread-self/ns/net")
    with subprocess.Popen(["unshare", "--net", "sleep", "infinity"]) as holder:
        try:
            deadline = time.monotonic() + 20
            while os.readlink(f"/proc/{holder.pid}/ns/net") == ours:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            subprocess.run(["ip", "link", "set", "lan1", "netns", str(holder.pid)], check=True)
            yield Nat(holder.pid, port)
        finally:
            holder.kill()
