from typing import Any, get_args

import messages
import msgpack
import pytest

from millrace.relay.contract import codec
from millrace.relay.contract.commands import Command
from millrace.relay.contract.engine_config import EngineConfig
from millrace.relay.contract.events import Event
from millrace.relay.contract.facts import Fact
from millrace.relay.contract.rpc import Answer, Rpc

PACKED = messages.packed()


@pytest.mark.parametrize("name", PACKED)
def test_a_message_is_packed_to_the_golden_bytes(name: str) -> None:
    assert PACKED[name] == messages.read(name)


def test_every_golden_file_is_of_a_message() -> None:
    kept = {str(path.relative_to(messages.GOLDEN).with_suffix("")) for path in messages.GOLDEN.rglob("*.hex")}
    assert kept == set(PACKED)


@pytest.mark.parametrize(
    ("union", "values"),
    [
        (Command, messages.COMMANDS),
        (Event, messages.EVENTS),
        (Fact, messages.FACTS),
        (Rpc, messages.CALLS),
        (Answer, messages.ANSWERS),
    ],
)
def test_every_message_has_golden_bytes(union: Any, values: dict[str, Any]) -> None:
    assert {type(value) for value in values.values()} == set(get_args(union))


@pytest.mark.parametrize("name", messages.COMMANDS)
def test_golden_bytes_are_read_back_as_the_command(name: str) -> None:
    assert codec.unpack_commands(messages.read(f"commands/{name}")) == [messages.COMMANDS[name]]


@pytest.mark.parametrize("name", messages.EVENTS)
def test_golden_bytes_are_read_back_as_the_event(name: str) -> None:
    assert codec.unpack_events(messages.read(f"events/{name}")) == [messages.EVENTS[name]]


@pytest.mark.parametrize("name", messages.FACTS)
def test_golden_bytes_are_read_back_as_the_fact(name: str) -> None:
    assert codec.unpack_envelope(messages.read(f"facts/{name}")) == messages.ENVELOPES[name]


@pytest.mark.parametrize("name", messages.CALLS)
def test_golden_bytes_are_read_back_as_the_call(name: str) -> None:
    assert codec.unpack_rpc(messages.read(f"calls/{name}")) == messages.CALLS[name]


@pytest.mark.parametrize("name", messages.ANSWERS)
def test_golden_bytes_are_read_back_as_the_answer(name: str) -> None:
    assert codec.unpack_answer(messages.read(f"answers/{name}")) == messages.ANSWERS[name]


def test_golden_bytes_are_read_back_as_the_engines_configuration() -> None:
    found = codec.unpack_plain(messages.read("engine_config"))
    assert isinstance(found, dict)
    # The bytes know no tuples.
    advertised = tuple(found.pop("advertised"))
    assert EngineConfig(**found, advertised=advertised) == messages.ENGINE_CONFIG


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"Invented": {}}, "unknown message"),
        ({"PublicationStarted": {"publication": 1, "more": 2}}, "more"),
        ({"PublicationStarted": {}}, "publication"),
        ({"PublicationStarted": {"publication": "1"}}, "str where int"),
        ({"PublicationStarted": {"publication": True}}, "bool where int"),
        ({"PublicationStarted": {"publication": None}}, "NoneType where int"),
        ({"TransportClosed": {"transport": 1, "cause": "boredom"}}, "boredom"),
        ({"PublicationStarted": {"publication": 1}, "PublicationEnded": {"publication": 1}}, "2 names"),
        ("PublicationStarted", "str where dict"),
    ],
)
def test_an_event_that_is_not_known_is_refused(message: Any, reason: str) -> None:
    with pytest.raises(codec.Unreadable, match=reason):
        codec.unpack_events(msgpack.packb([message]))


@pytest.mark.parametrize("bytes_", [b"", b"\xc1", b"\x91", b"\x80", b"\x90\x90", b"\xff", b"\xdd\xff\xff\xff\xff"])
def test_bytes_that_are_no_message_are_refused(bytes_: bytes) -> None:
    with pytest.raises(codec.Unreadable):
        codec.unpack_envelope(bytes_)


def test_a_fact_of_another_version_is_refused() -> None:
    version, message = msgpack.unpackb(messages.read("facts/load"))
    with pytest.raises(codec.Unreadable, match="version 2"):
        codec.unpack_envelope(msgpack.packb([version + 1, message]))
