"""The manifest that one master passes to the next."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.relay.config.model import ArenaConfig, Config
from millrace.relay.config.parse import parse
from millrace.relay.contract.takeover import (
    CONTRACTS,
    FIXED_AT_START,
    READ,
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
    written = replace(manifest(), fixed=json.loads(json.dumps(fixed_at_start(config()))))
    assert read == replace(written, descriptors=manifest().names())
    names = list(read.names())
    assert names[:7] == ["manifest", "lock", "arena", "doorbell-0", "doorbell-1", "heirs", "flow-map"]
    assert names[7:] == ["places", "http-0-0", "http-0-1", "media-1-0", "media-1-1"]


@pytest.mark.parametrize("contract", CONTRACTS)
def test_a_version_of_a_contract_that_is_not_read_is_refused_by_name(contract: str) -> None:
    content = json.loads(manifest().pack())
    for version in (READ[contract][0] - 1, READ[contract][-1] + 1, "1", None):
        content["contracts"][contract] = version
        with pytest.raises(Unreadable, match=f"`{contract}`"):
            unpack(json.dumps(content).encode())
    del content["contracts"][contract]
    with pytest.raises(Unreadable, match=f"version 0 of the contract `{contract}`"):
        unpack(json.dumps(content).encode())


def test_every_version_that_a_program_writes_it_reads() -> None:
    assert CONTRACTS.keys() == READ.keys()
    assert all(version in READ[name] for name, version in CONTRACTS.items())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text().map(lambda name: f"later {name}"), JSON, max_size=3), JSON)
def test_what_a_later_release_adds_to_a_manifest_is_skipped(added: dict[str, Any], more: Any) -> None:
    content = json.loads(manifest().pack())
    content |= added
    content["contracts"] |= added
    content["baked"] |= added
    content["groups"] = [[*group, more] for group in content["groups"]]
    read = unpack(json.dumps(content).encode())
    assert replace(read, fixed=read.fixed | fixed_at_start(config())) == replace(
        unpack(manifest().pack()), fixed=read.fixed | fixed_at_start(config())
    )
    assert with_inherited(config(), read) == (config(), ())


def test_a_manifest_of_an_earlier_release_names_no_descriptors_and_they_follow_from_the_rest() -> None:
    content = json.loads(manifest().pack())
    del content["descriptors"]
    read = unpack(json.dumps(content).encode())
    assert read.names() == manifest().names()
    assert read.foreign_names() == []


@pytest.mark.parametrize("field", ["slots", "groups", "directory", "fingerprint", "is_steered", "certificate_pem"])
def test_a_manifest_that_lacks_what_has_no_default_is_refused(field: str) -> None:
    content = json.loads(manifest().pack())
    del content[field]
    with pytest.raises(Unreadable, match=field):
        unpack(json.dumps(content).encode())


@pytest.mark.parametrize("name", ["arena", "doorbell-1", "media-1-0"])
def test_a_manifest_without_one_of_our_descriptors_is_refused(name: str) -> None:
    content = json.loads(manifest().pack())
    content["descriptors"].remove(name)
    with pytest.raises(Unreadable, match=name):
        unpack(json.dumps(content).encode())


@pytest.mark.parametrize("slots", [0, -1, 65, 10**12])
def test_a_manifest_of_more_slots_than_there_can_be_is_refused(slots: int) -> None:
    content = json.loads(manifest().pack())
    del content["descriptors"]
    with pytest.raises(Unreadable, match="slots"):
        unpack(json.dumps(content | {"slots": slots}).encode())


@pytest.mark.parametrize("descriptors", [["lock", "manifest"], ["manifest", "lock"] * 2])
def test_descriptors_of_no_order_are_refused(descriptors: list[str]) -> None:
    content = json.loads(manifest().pack())
    others = [name for name in content["descriptors"] if name not in descriptors]
    with pytest.raises(Unreadable, match="no order"):
        unpack(json.dumps(content | {"descriptors": [*descriptors, *others]}).encode())


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"{}", b'{"contracts": {}}', b"\xff"])
def test_what_is_no_manifest_is_refused(text: bytes) -> None:
    with pytest.raises(Unreadable):
        unpack(text)


def test_a_key_that_a_manifest_lacks_had_its_default() -> None:
    content = json.loads(manifest().pack())
    del content["baked"]["arena.log_packets"]
    left = unpack(json.dumps(content).encode())
    assert with_inherited(config(), left) == (config(), ())
    assert with_inherited(config("arena.log_packets=64"), left) == (config(), ("arena.log_packets",))


def test_what_is_inherited_holds_and_what_differs_is_named() -> None:
    wanted = config("http.port=9000", 'http.bind=["127.0.0.1"]', "arena.log_packets=64", "log.level=debug")
    settled, deferred = with_inherited(wanted, unpack(manifest().pack()))
    assert deferred == ("http.bind", "http.port", "arena.log_packets")
    assert settled == config("log.level=debug")
    assert with_inherited(config(), unpack(manifest().pack())) == (config(), ())


def test_every_key_of_the_arena_is_fixed_at_start() -> None:
    assert {f"arena.{name}" for name in ArenaConfig.__slots__} <= set(FIXED_AT_START)
