"""Without keys the media port is of no use to other machines, though Firefox needs an address besides loopback."""

import subprocess
import sys
import textwrap

import pytest

from millrace.master.kernel.sockets import bind_all
from millrace.relay.config.model import Config
from millrace.relay.config.parse import parse

IN_A_NAMESPACE = textwrap.dedent("""
    import os, socket, subprocess, sys
    from millrace.master.kernel.sockets import hear_this_machine_only

    def run(*words):
        subprocess.run(words, check=True)

    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "near", "type", "veth", "peer", "name", "far")
    run("ip", "addr", "add", "10.9.0.1/24", "dev", "near")
    run("ip", "link", "set", "near", "up")
    neighbour = subprocess.Popen(["unshare", "-n", "sh", "-c", "echo up; exec sleep 30"], stdout=subprocess.PIPE)
    neighbour.stdout.readline()
    enter = ["nsenter", "-t", str(neighbour.pid), "-n"]
    run("ip", "link", "set", "far", "netns", str(neighbour.pid))
    run(*enter, "ip", "addr", "add", "10.9.0.2/24", "dev", "far")
    run(*enter, "ip", "link", "set", "far", "up")

    local, witness = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    hear_this_machine_only(local)
    local.bind(("10.9.0.1", 5555))
    witness.bind(("10.9.0.1", 5556))
    for each in (local, witness):
        each.settimeout(5)
    send = ("import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM);"
            "[s.sendto(b'outside', ('10.9.0.1', port)) for port in (5555, 5556)]")
    run(*enter, sys.executable, "-c", send)
    assert witness.recv(100) == b"outside", "the neighbour does reach this machine"
    witness.sendto(b"inside", ("10.9.0.1", 5555))
    print(local.recv(100).decode())
    neighbour.kill()
""")


@pytest.mark.netns
def test_a_local_socket_hears_this_machine_and_no_other() -> None:
    heard = subprocess.run(
        ["unshare", "-n", sys.executable, "-c", IN_A_NAMESPACE], capture_output=True, text=True, timeout=60, check=False
    )
    assert (heard.stdout.strip(), heard.returncode) == ("inside", 0), heard.stderr


def test_an_open_relay_binds_one_address_that_firefox_can_pair() -> None:
    config = parse("[http]\nport = 0\n[media]\nport = 0\n[admin]\nport = 0\n")
    assert isinstance(config, Config)
    sockets = bind_all(config, 1)
    try:
        addresses = [group.address for group in sockets.media]
        outward = [address for address in addresses if address not in ("127.0.0.1", "::1")]
        assert addresses[0] == "127.0.0.1"
        assert len(outward) <= 1
        assert len({group.port for group in sockets.media}) == 1
    finally:
        for group in (*sockets.http, *sockets.admin, *sockets.media):
            for member in group.members:
                member.close()
