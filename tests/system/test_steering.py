"""The steering program in the real kernel: which slot's socket gets a datagram."""

import os
import select
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from millrace.master.kernel.bpf import delete_from_map, update_map
from millrace.master.kernel.reuseport import spread
from millrace.master.kernel.steering import flow_key, set_down, set_eligible, steer

pytestmark = pytest.mark.system

SLOTS = 4
SOURCES = 24
"""Source ports tried: by the kernel's hash, all on one slot of four has a chance of 4^-23."""
MEDIA = b"\x80\x60" + bytes(40)


@dataclass(frozen=True, slots=True)
class Steered:
    """Groups of sockets under one program, with its maps."""

    groups: tuple[tuple[socket.socket, ...], ...]
    flow_map: int
    eligible: int
    down: int


def group(family: int, address: str, kind: int = socket.SOCK_DGRAM) -> tuple[socket.socket, ...]:
    members: list[socket.socket] = []
    for _ in range(SLOTS):
        member = socket.socket(family, kind)
        member.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        member.bind((address, members[0].getsockname()[1] if members else 0))
        members.append(member)
    return tuple(members)


@pytest.fixture
def steered() -> Iterator[Steered]:
    if os.geteuid() != 0:
        pytest.skip("loading a program needs root; what happens without is tested below")
    groups = (group(socket.AF_INET, "127.0.0.1"), group(socket.AF_INET6, "::1"))
    steered = steer(groups, 1024)
    assert steered.down is not None
    yield Steered(groups, steered.flow_map, steered.eligible, steered.down)
    steered.close()
    for member in (*groups[0], *groups[1]):
        member.close()


def landed(members: Sequence[socket.socket], payload: bytes, source: socket.socket) -> int:
    """Sends one datagram and says which slot got it."""
    source.sendto(payload, members[0].getsockname())
    ready, _, _ = select.select(members, [], [], 5)
    (member,) = ready
    assert member.recv(2048) == payload
    return members.index(member)


def sources(members: Sequence[socket.socket]) -> Iterator[socket.socket]:
    for _ in range(SOURCES):
        with socket.socket(members[0].family, socket.SOCK_DGRAM) as source:
            source.bind((members[0].getsockname()[0], 0))
            yield source


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)


def binding_request(ufrag: str, before: bytes = b"") -> bytes:
    attributes = before + attribute(6, f"{ufrag}:client".encode()) + attribute(0x24, bytes(4))
    return struct.pack("!HHI", 1, len(attributes), 0x2112A442) + bytes(12) + attributes


PRIORITY = attribute(0x24, bytes(4))
SOFTWARE = attribute(0x8022, b"seven c")
"""Seven bytes: its padding has to be stepped over."""


@pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("before", [b"", PRIORITY, SOFTWARE, PRIORITY + SOFTWARE + PRIORITY], ids=len)
def test_binding_request_lands_at_the_slot_of_its_ufrag(steered: Steered, family: int, before: bytes) -> None:
    members = steered.groups[family]
    for slot in range(SLOTS):
        request = binding_request(f"{slot:02x}4kEaNyXw", before)
        assert {landed(members, request, source) for source in sources(members)} == {slot}


@pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
def test_flow_map_steers_any_datagram_of_its_source(steered: Steered, family: int) -> None:
    members = steered.groups[family]
    for number, source in enumerate(sources(members)):
        slot = number % SLOTS
        update_map(steered.flow_map, flow_key(*source.getsockname()[:2]), struct.pack("=I", slot))
        for payload in (MEDIA, b"", b"\x16", bytes(1400), b"\0\1" + bytes(18)):
            assert landed(members, payload, source) == slot


def test_flow_map_knows_addresses_and_not_only_ports(steered: Steered) -> None:
    members = steered.groups[0]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as source:
        source.bind(("127.0.0.2", 0))
        port = source.getsockname()[1]
        by_hash = landed(members, MEDIA, source)
        other = (by_hash + 1) % SLOTS
        update_map(steered.flow_map, flow_key("127.0.0.3", port), struct.pack("=I", other))
        assert landed(members, MEDIA, source) == by_hash
        update_map(steered.flow_map, flow_key("127.0.0.2", port), struct.pack("=I", other))
        assert landed(members, MEDIA, source) == other
        delete_from_map(steered.flow_map, flow_key("127.0.0.2", port))
        assert landed(members, MEDIA, source) == by_hash


def test_ufrag_wins_over_the_flow_map(steered: Steered) -> None:
    members = steered.groups[0]
    for source in sources(members):
        update_map(steered.flow_map, flow_key(*source.getsockname()), struct.pack("=I", 1))
        assert landed(members, binding_request("02abcdefgh"), source) == 2


@pytest.mark.parametrize(
    "payload",
    [
        binding_request("2"),
        binding_request("0Aabcdefgh"),
        binding_request("0/abcdefgh"),
        binding_request("0:abcdefgh"),
        binding_request("0gabcdefgh"),
        binding_request("zzabcdefgh"),
        binding_request("ffabcdefgh"),
        binding_request("02abcdefgh")[:25],
        binding_request("02abcdefgh").replace(b"\x21\x12\xa4\x42", b"\x21\x12\xa4\x43"),
        b"\1\1" + binding_request("02abcdefgh")[2:],
        binding_request("02abcdefgh", PRIORITY * 4),
        binding_request("02abcdefgh", b"\x80\x22\xff\xff"),
        MEDIA,
        b"",
    ],
    ids=range(14),
)
def test_what_tells_no_slot_goes_where_the_hash_says(steered: Steered, payload: bytes) -> None:
    members = steered.groups[0]
    slots = [landed(members, payload, source) for source in sources(members)]
    assert len(set(slots)) > 1, "spread over slots, and none lost"


@pytest.mark.parametrize("opened", [1, 2, 3])
def test_what_tells_no_slot_is_spread_over_the_open_ones_only(steered: Steered, opened: int) -> None:
    set_eligible(steered.eligible, opened, 3)
    for members in steered.groups:
        assert are_spread({landed(members, MEDIA, source) for source in sources(members)}, opened)


def are_spread(slots: set[int], opened: int) -> bool:
    """That all of three or four get some has not the same certainty (see `SOURCES`)."""
    return slots <= set(range(opened)) and len(slots) >= min(opened, 2)


def test_what_names_a_slot_goes_there_while_somebody_lives_in_it(steered: Steered) -> None:
    set_eligible(steered.eligible, 1, 3)
    members = steered.groups[0]
    for source in sources(members):
        assert landed(members, binding_request("02abcdefgh"), source) == 2, "it leaves, but is there"
        assert landed(members, binding_request("03abcdefgh"), source) == 0
        for slot, lands in ((2, 2), (3, 0)):
            update_map(steered.flow_map, flow_key(*source.getsockname()), struct.pack("=I", slot))
            assert landed(members, MEDIA, source) == lands
            assert landed(members, binding_request("03abcdefgh"), source) == lands, "its address still tells"


@pytest.mark.parametrize("down", [{1}, {0}, {0, 3}, {1, 2, 3}], ids=str)
@pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
def test_what_is_for_a_slot_that_is_down_goes_to_the_others_and_nothing_else_moves(
    steered: Steered, family: int, down: set[int]
) -> None:
    members = steered.groups[family]
    set_eligible(steered.eligible, 4, 4)
    for source in sources(members):
        set_down(steered.down, 4, ())
        before = landed(members, MEDIA, source)
        set_down(steered.down, 4, down)
        after = landed(members, MEDIA, source)
        assert after not in down
        assert after == before or before in down
        for slot in range(SLOTS):
            assert landed(members, binding_request(f"{slot:02x}abcdefgh"), source) == (after if slot in down else slot)
            update_map(steered.flow_map, flow_key(*source.getsockname()[:2]), struct.pack("=I", slot))
            assert landed(members, MEDIA, source) == (after if slot in down else slot)
            delete_from_map(steered.flow_map, flow_key(*source.getsockname()[:2]))
    set_down(steered.down, 4, {1})
    assert {landed(members, MEDIA, source) for source in sources(members)} <= {0, 2, 3}


@pytest.mark.parametrize("down", [{1}, {0}, {0, 3}, {1, 2, 3}], ids=str)
@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_without_a_steering_program_flows_of_a_slot_that_is_down_go_to_the_others_and_no_other_moves(
    family: int, address: str, down: set[int]
) -> None:
    members = group(family, address)
    for source in sources(members):
        spread(members, 4)
        before = landed(members, MEDIA, source)
        spread(members, 4, down)
        after = landed(members, MEDIA, source)
        assert after not in down
        assert after == before or before in down
    spread(members, 4, {1})
    assert len({landed(members, MEDIA, source) for source in sources(members)}) > 1
    for member in members:
        member.close()


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_without_a_steering_program_flows_go_to_the_open_slots_only_and_each_stays_with_one(
    family: int, address: str
) -> None:
    members = group(family, address)
    for opened in (4, 1, 3, 2):
        spread(members, opened)
        slots = set()
        for source in sources(members):
            places = {landed(members, payload, source) for payload in (MEDIA, b"", binding_request("03abcdefgh"))}
            assert len(places) == 1
            slots |= places
        assert are_spread(slots, opened)
    for member in members:
        member.close()


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_connections_go_to_the_open_listeners_only(family: int, address: str) -> None:
    members = group(family, address, socket.SOCK_STREAM)
    # As the master does it: none of the others ever gets one that nobody would take.
    members[0].listen(SOURCES)
    spread(members, 1)
    for member in members[1:]:
        member.listen(SOURCES)
    for opened, down in ((1, ()), (3, ()), (2, ()), (3, (0,))):
        spread(members, opened, down)
        clients, slots = [], set()
        for _ in range(SOURCES):
            clients.append(socket.create_connection(members[0].getsockname()[:2], timeout=5))
            ready, _, _ = select.select(members, [], [], 5)
            (member,) = ready
            clients.append(member.accept()[0])
            slots.add(members.index(member))
        assert are_spread(slots, opened)
        assert slots.isdisjoint(down)
        for client in clients:
            client.close()
    for member in members:
        member.close()


def test_sockets_stay_steered_when_a_child_that_had_them_is_gone(steered: Steered) -> None:
    members = steered.groups[0]
    pid = os.fork()
    if pid == 0:
        for member in members:
            member.close()
        os._exit(0)
    os.waitpid(pid, 0)
    assert {landed(members, binding_request("03abcdefgh"), source) for source in sources(members)} == {3}


WITHOUT_PRIVILEGE = """
import logging, os, sys
from millrace.master.start.prepare import SteeringRefused, steering
from millrace.master.kernel.sockets import bind_all
from millrace.relay.config.parse import parse

logging.basicConfig(stream=sys.stdout)
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
ports = ["http.port=0", "admin.port=0", "media.port=0"]
for wanted in ("auto", "handover", "ebpf"):
    config = parse("", [*ports, f"media.steering={wanted}"])
    try:
        print(wanted, steering(config, bind_all(config, 2), 2))
    except SteeringRefused as refusal:
        print(wanted, "refused:", refusal)
"""


def test_without_privilege_auto_hands_over_with_one_warning_and_ebpf_is_an_error() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PRIVILEGE], capture_output=True, text=True, timeout=60, check=True
    )
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("WARNING")] == lines[:1]
    assert "workers hand over" in lines[0]
    assert lines[1:3] == ["auto None", "handover None"]
    assert lines[3].startswith("ebpf refused: media.steering: the kernel does not take the steering program")
