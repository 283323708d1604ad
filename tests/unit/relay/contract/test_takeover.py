"""The manifest that one master passes to the next."""

import json
from dataclasses import replace

import pytest

from millrace.relay.config.model import ArenaConfig, Config
from millrace.relay.config.parse import parse
from millrace.relay.contract.takeover import (
    FIXED_AT_START,
    Manifest,
    SocketGroup,
    Unreadable,
    fixed_at_start,
    unpack,
    with_inherited,
)

SETTINGS = ("http.port=0", "admin.port=0", "media.port=0", "workers.count=2", "media.steering=handover")


def config(*settings: str) -> Config:
    parsed = parse("", [*SETTINGS, *settings])
    assert isinstance(parsed, Config)
    return parsed


def manifest() -> Manifest:
    return Manifest(
        slots=2,
        count=2,
        groups=(SocketGroup("http", "::1", 7880), SocketGroup("media", "127.0.0.1", 7882)),
        is_steered=True,
        has_takeover_socket=True,
        directory="/run/millrace",
        is_ours=False,
        fixed=fixed_at_start(config()),
        certificate_pem="certificate",
        private_key_pem="key",
        fingerprint="sha-256 AB",
        started_at=1.5,
    )


def test_a_manifest_is_read_as_it_was_written() -> None:
    read = unpack(manifest().pack())
    assert read == replace(manifest(), fixed=json.loads(json.dumps(fixed_at_start(config()))))
    names = list(read.names())
    assert names[:7] == ["manifest", "lock", "arena", "doorbell-0", "doorbell-1", "heirs", "flow-map"]
    assert names[7:] == ["places", "http-0-0", "http-0-1", "media-1-0", "media-1-1"]


@pytest.mark.parametrize("contract", ["estate", "arena", "facts", "kept"])
def test_another_version_of_a_contract_is_refused_by_name(contract: str) -> None:
    content = json.loads(manifest().pack())
    content["contracts"][contract] += 1
    with pytest.raises(Unreadable, match=f"`{contract}`"):
        unpack(json.dumps(content).encode())


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"{}", b'{"contracts": {}}', b"\xff"])
def test_what_is_no_manifest_is_refused(text: bytes) -> None:
    with pytest.raises(Unreadable):
        unpack(text)


def test_a_manifest_that_lacks_a_key_is_refused() -> None:
    content = json.loads(manifest().pack())
    del content["baked"]["http.port"]
    with pytest.raises(Unreadable, match=r"http\.port"):
        unpack(json.dumps(content).encode())


def test_what_is_inherited_holds_and_what_differs_is_named() -> None:
    wanted = config("http.port=9000", 'http.bind=["127.0.0.1"]', "arena.log_packets=64", "log.level=debug")
    settled, deferred = with_inherited(wanted, unpack(manifest().pack()))
    assert deferred == ("http.bind", "http.port", "arena.log_packets")
    assert settled == config("log.level=debug")
    assert with_inherited(config(), unpack(manifest().pack())) == (config(), ())


def test_every_key_of_the_arena_is_fixed_at_start() -> None:
    assert {f"arena.{name}" for name in ArenaConfig.__slots__} <= set(FIXED_AT_START)
