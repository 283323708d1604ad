"""The engine from Python: started on real loopback sockets, told to open a transport, asked by STUN, stopped."""

import hashlib
import hmac
import itertools
import mmap
import os
import secrets
import select
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from millrace.master.start.x509 import make_certificate
from millrace.relay._engine import Engine
from millrace.relay.contract.codec import pack_commands, unpack_events, unpack_plain
from millrace.relay.contract.commands import CloseTransport, DtlsRole, OpenTransport
from millrace.relay.contract.engine_config import EngineConfig, pack_engine_config
from millrace.relay.contract.events import AdoptionDone, Cause, CommandFailed, Event, TransportClosed
from millrace.relay.contract.ids import TransportId
from millrace.relay.contract.layout import ArenaParameters, read_word, slot_offsets

PWD = "p" * 24
PARAMETERS = ArenaParameters(2, 4, 64, 64, 16, 64, 4, 256)
CERTIFICATE = make_certificate(datetime.now(UTC))


@dataclass
class Box:
    """What a master would have made for two workers."""

    arena: int
    doorbells: list[int]
    exits: ExitStack

    def sockets(self, *addresses: str, port: int = 0) -> list[socket.socket]:
        bound = []
        for address in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            media = self.exits.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            media.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            media.bind((address, port))
            bound.append(media)
        return bound

    def engine(self, slot: int, sockets: list[socket.socket]) -> Engine:
        fds = [media.fileno() for media in sockets]
        engine = Engine(fds, slot, pack_engine_config(config(slot)), self.arena, self.doorbells, None)
        self.exits.callback(engine.stop, goodbye=True)
        engine.start()
        return engine

    def word(self, offset: int) -> int:
        with mmap.mmap(self.arena, PARAMETERS.size()) as mapped, memoryview(mapped) as view:
            return read_word(view, offset)


@pytest.fixture
def box() -> Iterator[Box]:
    with ExitStack() as exits:
        arena = os.memfd_create("arena")
        exits.callback(os.close, arena)
        os.ftruncate(arena, PARAMETERS.size())
        os.pwrite(arena, PARAMETERS.header(seed=1), 0)
        doorbells = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(PARAMETERS.slots)]
        for doorbell in doorbells:
            exits.callback(os.close, doorbell)
        yield Box(arena, doorbells, exits)


def config(slot: int) -> EngineConfig:
    certificate_pem, private_key_pem = CERTIFICATE.certificate_pem, CERTIFICATE.private_key_pem
    times = (30_000, 30_000, 30_000, 30_000)
    return EngineConfig(
        slot, 2, True, certificate_pem, private_key_pem, 10, 10, 8, 32, *times, 250, ("127.0.0.1:7882",)
    )


def open_transport(transport: int, ufrag: str) -> OpenTransport:
    return OpenTransport(
        TransportId(transport), ufrag, PWD, "client", "c" * 24, DtlsRole.SERVER, "sha-256", (bytes(32),), True
    )


def binding_request(ufrag: str, transaction: bytes) -> bytes:
    """RFC 8489 with the attributes of an ICE check (RFC 8445 section 7.1)."""

    def attribute(kind: int, value: bytes) -> bytes:
        return struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)

    def header(length: int) -> bytes:
        return struct.pack("!HHI", 0x0001, length, 0x2112A442) + transaction

    body = attribute(0x0006, f"{ufrag}:client".encode())
    body += attribute(0x0024, struct.pack("!I", 1 << 24)) + attribute(0x802A, secrets.token_bytes(8))
    integrity = hmac.new(PWD.encode(), header(len(body) + 24) + body, hashlib.sha1).digest()
    body += attribute(0x0008, integrity)
    fingerprint = zlib.crc32(header(len(body) + 8) + body) ^ 0x5354554E
    body += attribute(0x8028, struct.pack("!I", fingerprint))
    return header(len(body)) + body


def check(to: socket.socket, ufrag: str) -> bytes:
    """Sends checks as a browser would, again every 50 ms, and returns the answer to one."""
    transaction = secrets.token_bytes(12)
    with socket.socket(to.family, socket.SOCK_DGRAM) as client:
        client.settimeout(0.05)
        for _ in range(100):
            client.sendto(binding_request(ufrag, transaction), to.getsockname())
            try:
                answer = client.recv(2048)
            except TimeoutError:
                continue
            assert answer[8:20] == transaction
            assert mapped_address(answer, transaction) == client.getsockname()[1]
            return answer
    raise AssertionError("no answer")


def mapped_address(answer: bytes, transaction: bytes) -> int:
    """The port in XOR-MAPPED-ADDRESS (RFC 8489 section 14.2)."""
    assert struct.unpack_from("!HHI", answer)[::2] == (0x0101, 0x2112A442), transaction
    offset = 20
    while offset < len(answer):
        kind, length = struct.unpack_from("!HH", answer, offset)
        if kind == 0x0020:
            port: int = struct.unpack_from("!H", answer, offset + 6)[0] ^ 0x2112
            return port
        offset += 4 + length + -length % 4
    raise AssertionError("no XOR-MAPPED-ADDRESS")


def events(engine: Engine, until: Callable[[Event], bool]) -> list[Event]:
    """Everything up to and with the event that is waited for."""
    seen: list[Event] = []
    while not any(map(until, seen)):
        assert select.select([engine], [], [], 5)[0], f"nothing more after {seen}"
        seen += unpack_events(engine.events())
    return seen


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_check_under_the_transports_credentials_is_answered_and_counted(box: Box, address: str) -> None:
    media = box.sockets("127.0.0.1", "::1")
    engine = box.engine(0, media)
    engine.submit(pack_commands([open_transport(1, "00abcdefgh")]))
    check(media[["127.0.0.1", "::1"].index(address)], "00abcdefgh")
    # The answer may be here before its round has counted it.
    assert eventually(lambda: unpack_plain(engine.stats())[0]["datagrams_sent"] >= 1)
    counters = unpack_plain(engine.stats())
    assert len(counters) == PARAMETERS.slots
    assert counters[0]["stun_requests"] >= 1
    assert counters[0]["transports"] == 1
    assert not any(counters[1].values())


def test_a_stranger_gets_silence(box: Box) -> None:
    media = box.sockets("127.0.0.1")
    engine = box.engine(0, media)
    engine.submit(pack_commands([open_transport(1, "00abcdefgh")]))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for datagram in (binding_request("00stranger", bytes(12)), b"", b"x", bytes(1400), b"\x80" * 2000, bytes(9000)):
            stranger.sendto(datagram, media[0].getsockname())
        check(media[0], "00abcdefgh")
        stranger.setblocking(False)
        with pytest.raises(BlockingIOError):
            stranger.recv(2048)
    assert unpack_plain(engine.stats())[0]["drops.in.stun_unknown_ufrag"] == 1


def test_a_check_that_reaches_the_wrong_worker_is_handed_over_and_answered(box: Box) -> None:
    """Two workers on one port without steering: the kernel's hash sends some checks to the wrong one."""
    first = box.sockets("127.0.0.1")
    second = box.sockets("127.0.0.1", port=first[0].getsockname()[1])
    engines = [box.engine(0, first), box.engine(1, second)]
    engines[1].submit(pack_commands([open_transport(1, "01abcdefgh")]))
    for _ in range(200):
        check(first[0], "01abcdefgh")
        counters = unpack_plain(engines[0].stats())
        if counters[0]["handovers_out"]:
            assert counters[1]["handovers_in"] >= 1
            return
    raise AssertionError("the kernel never chose the other worker")


def test_closing_a_transport_is_said_by_an_event(box: Box) -> None:
    engine = box.engine(0, box.sockets("127.0.0.1"))
    assert events(engine, lambda event: isinstance(event, AdoptionDone)) == [AdoptionDone(0, 0)]
    assert unpack_events(engine.events()) == []
    engine.submit(pack_commands([open_transport(7, "00abcdefgh"), CloseTransport(TransportId(7))]))
    seen = events(engine, lambda event: isinstance(event, TransportClosed))
    assert seen == [TransportClosed(TransportId(7), Cause.CLOSED)]


def test_a_command_that_cannot_be_carried_out_is_said_by_an_event(box: Box) -> None:
    engine = box.engine(0, box.sockets("127.0.0.1"))
    engine.submit(pack_commands([open_transport(7, "00abcdefgh"), open_transport(7, "00abcdefgh")]))
    failed = events(engine, lambda event: isinstance(event, CommandFailed))[-1]
    assert isinstance(failed, CommandFailed)
    assert (failed.command, failed.id) == ("OpenTransport", 7)


def test_what_does_not_parse_is_refused_at_once(box: Box) -> None:
    engine = box.engine(0, box.sockets("127.0.0.1"))
    for bad in (b"", b"\xc1", pack_commands([open_transport(1, "00abcdefgh")])[:-1], b"\x91\x81\xa4Nope\x80"):
        with pytest.raises(ValueError, match=r"^\S"):
            engine.submit(bad)


def test_an_engine_that_does_not_fit_its_arena_is_refused(box: Box) -> None:
    packed = pack_engine_config(config(0))
    for slot, doorbells in ((1, box.doorbells), (9, box.doorbells), (0, box.doorbells[:1])):
        with pytest.raises(ValueError, match="slot"):
            Engine([], slot, packed, box.arena, doorbells, None)
    with pytest.raises(ValueError, match="arena"):
        Engine([], 0, packed, box.doorbells[0], box.doorbells, None)
    with pytest.raises(OSError, match="descriptor"):
        Engine([999_999], 0, packed, box.arena, box.doorbells, None)


def test_an_idle_engine_beats_at_least_four_times_a_second_and_sleeps_in_between(box: Box) -> None:
    box.engine(0, box.sockets("127.0.0.1"))
    beats: set[int] = set()

    def seen_six() -> bool:
        beats.add(box.word(slot_offsets(0).engine_beat))
        return len(beats - {0}) >= 6

    assert eventually(seen_six)
    # The middle one: a machine that stands still makes one of them long.
    pauses = sorted(later - earlier for earlier, later in itertools.pairwise(sorted(beats - {0})))
    assert 50_000 < pauses[len(pauses) // 2] < 250_000

    def is_of_now() -> bool:
        beat = box.word(slot_offsets(0).engine_beat)
        return 0 <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000 - beat < 1_000_000

    assert eventually(is_of_now)


def test_a_stopped_engine_leaves_no_thread_and_takes_no_command(box: Box) -> None:
    media = box.sockets("127.0.0.1")
    engine = box.engine(0, media)
    # A thread names itself.
    assert eventually(lambda: "engine" in thread_names())
    with pytest.raises(RuntimeError, match="started before"):
        engine.start()
    engine.submit(pack_commands([open_transport(1, "00abcdefgh")]))
    engine.stop(goodbye=True)
    engine.stop(goodbye=True)
    # The kernel takes a thread off the list a moment after it was waited for.
    assert eventually(lambda: "engine" not in thread_names())
    with pytest.raises(RuntimeError, match="stopped"):
        engine.submit(pack_commands([]))
    assert unpack_events(engine.events()) == [AdoptionDone(0, 0), TransportClosed(TransportId(1), Cause.CLOSED)]


def test_an_engine_that_lets_go_tells_nobody_and_leaves_what_it_had_to_its_successor(box: Box) -> None:
    media = box.sockets("127.0.0.1")
    engine = box.engine(0, media)
    engine.submit(pack_commands([open_transport(1, "00abcdefgh")]))
    engine.stop(goodbye=False)
    assert unpack_events(engine.events()) == [AdoptionDone(0, 0)]
    successor = box.engine(0, media)
    # The control plane has kept nothing of it, so nobody could ever end it: it is counted.
    assert events(successor, lambda event: isinstance(event, AdoptionDone))[-1] == AdoptionDone(0, 1)


def test_python_that_holds_its_lock_does_not_hold_the_engine(box: Box) -> None:
    """One call of C code that never lets go of the GIL, and an answer in the receive queue at its end."""
    media = box.sockets("127.0.0.1")
    engine = box.engine(0, media)
    engine.submit(pack_commands([open_transport(1, "00abcdefgh")]))
    check(media[0], "00abcdefgh")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(binding_request("00abcdefgh", bytes(12)), media[0].getsockname())
        before = time.monotonic()
        sorted(range(1_000_000, 0, -1), key=str)
        held = time.monotonic() - before
        client.setblocking(False)
        answer = client.recv(2048)
    assert answer[8:20] == bytes(12), f"answered within the {held:.3f} s"


def eventually(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not holds():
        if time.monotonic() > deadline:
            return False
    return True


def thread_names() -> set[str]:
    names = set()
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/comm") as comm:
                names.add(comm.read().strip())
        except FileNotFoundError:
            continue
    return names
