"""What a reader makes of messages of another release: more fields, fewer, and kinds that it does not know."""

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.relay.contract import codec
from millrace.relay.contract.commands import Codec, CodecName, Extension, ExtensionKind, MediaKind
from millrace.relay.contract.facts import Envelope, Fact, Load, PublicationHere, Snapshot
from millrace.relay.contract.ids import (
    Incarnation,
    ParticipantId,
    PublicationId,
    RoomName,
    SessionId,
    Slot,
    SubscriptionId,
    TransportId,
)
from millrace.relay.contract.inputs import EndsHeard
from millrace.relay.contract.protocol import Protocol
from millrace.relay.contract.tombstone import Tombstone
from millrace.relay.session import record

SESSION, ROOM, WHO = SessionId("03.AAAAAAAAAAAAAAAAAAAAAA"), RoomName("hall"), ParticipantId("Zoë")
PUBLICATION = PublicationHere(
    room=ROOM,
    session=SESSION,
    participant=WHO,
    publication=PublicationId(7),
    kind=MediaKind.VIDEO,
    position=0,
    codec=CodecName.VP8,
    clock_rate=90_000,
    format_parameters="",
    logs=(1, 2),
    extensions=(Extension(1, ExtensionKind.MID), Extension(2, ExtensionKind.RID)),
    published_at=1.5,
)
FORMATS = record.RecordedFormats(((Codec(CodecName.VP8, 96, None, 90_000), ""),), PUBLICATION.extensions)
STREAM = record.RecordedStream(SubscriptionId(3), MediaKind.VIDEO, "0", 0, 1, None, b"formats")
FIXED = record.FixedRecord(
    SESSION, Protocol.WHIP, ROOM, WHO, TransportId(1), 1.5, ("0",), None, (PUBLICATION,), (STREAM,), (1,)
)
KEPT = record.SessionRecord("etag", "ufrag", "pwd", (PublicationId(7),), (None,), b"fixed", ("a", "b"))
LOAD = Load(1, 2, 3, (("millrace_defects_total", 4),))
TOMBSTONE = Tombstone(SESSION, Protocol.WHIP, ROOM, WHO, 1.5, 2.5, "replaced", 3.5)


def envelope(fact: Fact | None) -> Envelope:
    return Envelope(Slot(3), Incarnation(2), 70, fact)


SNAPSHOT = Snapshot(Slot(3), Incarnation(2), 70, (PUBLICATION, LOAD))


@dataclass(frozen=True)
class Reader:
    """One contract, with a message of it."""

    message: Any
    pack: Callable[[Any], bytes]
    unpack: Callable[[bytes, codec.Skip], Any]


def kept(part: codec.RecordPart, value: Any) -> Reader:
    return Reader(
        value,
        lambda value: codec.pack_record_part(part, value),
        lambda packed, skip: codec.unpack_record_part(part, packed, skip),
    )


READERS = {
    "a publication": Reader(envelope(PUBLICATION), codec.pack_envelope, codec.unpack_envelope),
    "a load": Reader(envelope(LOAD), codec.pack_envelope, codec.unpack_envelope),
    "a snapshot": Reader(SNAPSHOT, codec.pack_answer, codec.unpack_answer),
    "ends": Reader(EndsHeard((TOMBSTONE,)), codec.pack_rpc, codec.unpack_rpc),
    "formats": kept(record._FORMATS, FORMATS),
    "fixed": kept(record._FIXED, FIXED),
    "kept": kept(record._WHOLE, KEPT),
}
EVERY = pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
LATER = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text() | st.integers(0, 2**32) | st.binary(), inner, max_size=3)
    ),
    max_leaves=6,
)
ADDED = st.dictionaries(st.text().map(lambda name: f"later {name}"), LATER, max_size=2)


def is_tag(plain: dict[Any, Any]) -> bool:
    """The name of a kind, as fields are written in lower case."""
    return len(plain) == 1 and next(iter(plain))[:1].isupper()


def grown(plain: Any, more: Callable[[], dict[str, Any]], is_row: bool = False) -> Any:
    """With more fields in every map of fields, and more items in every row, at any depth."""
    if isinstance(plain, dict):
        inner = {name: grown(value, more) for name, value in plain.items()}
        return inner if is_tag(plain) else {**more(), **inner, **more()}
    if isinstance(plain, list):
        items = [grown(item, more, is_row=isinstance(item, list)) for item in plain]
        return items + list(more().values()) if is_row else items
    return plain


def thinned(value: Any, plain: Any, is_left_out: Callable[[], bool]) -> tuple[Any, Any]:
    """Without some of the fields that have defaults, and the value that is to be read then."""
    if isinstance(value, tuple):
        pairs = [thinned(item, packed, is_left_out) for item, packed in zip(value, plain, strict=True)]
        return tuple(item for item, _ in pairs), [packed for _, packed in pairs]
    if not is_dataclass(value):
        return value, plain
    if is_tag(plain):
        ((name, inner),) = plain.items()
        read, inner = thinned(value, inner, is_left_out)
        return read, {name: inner}
    changes, rest = {}, dict(plain)
    for field in fields(value):
        if field.name in rest and field.default is not MISSING and is_left_out():
            changes[field.name] = field.default
            del rest[field.name]
        elif field.name in rest:
            changes[field.name], rest[field.name] = thinned(getattr(value, field.name), rest[field.name], is_left_out)
    return replace(value, **changes), rest  # type: ignore[type-var]


def never(error: codec.Unreadable) -> None:
    raise AssertionError(error)


@EVERY
@given(data=st.data())
def test_a_message_with_more_fields_at_any_depth_reads_as_the_one_without(reader: Reader, data: st.DataObject) -> None:
    version, plain = msgpack.unpackb(reader.pack(reader.message))
    later = grown(plain, lambda: data.draw(ADDED))
    packed = msgpack.packb([version, later, *data.draw(st.lists(LATER, max_size=2))])
    assert reader.unpack(packed, never) == reader.message


@EVERY
@given(data=st.data())
def test_a_field_that_is_absent_has_its_default(reader: Reader, data: st.DataObject) -> None:
    version, plain = msgpack.unpackb(reader.pack(reader.message))
    expected, rest = thinned(reader.message, plain, lambda: data.draw(st.booleans()))
    assert reader.unpack(msgpack.packb([version, rest]), never) == expected


def test_a_load_of_nothing_but_what_has_no_default_is_read() -> None:
    packed = msgpack.packb(
        [1, {"Envelope": {"slot": 3, "incarnation": 2, "sequence": 70, "fact": {"Load": {"sessions": 5}}}}]
    )
    assert codec.unpack_envelope(packed, never) == envelope(Load(5))


@EVERY
def test_a_message_without_what_has_no_default_is_refused(reader: Reader) -> None:
    version, plain = msgpack.unpackb(reader.pack(reader.message))
    inner = next(iter(plain.values())) if is_tag(plain) else plain
    has_default = {field.name for field in fields(reader.message) if field.default is not MISSING}
    for name in inner.keys() - has_default:
        less = {key: value for key, value in inner.items() if key != name}
        packed = msgpack.packb([version, {next(iter(plain)): less} if is_tag(plain) else less])
        with pytest.raises(codec.Unreadable, match=name):
            reader.unpack(packed, never)


INVENTED = {"Invented": {"since": "later"}}


@pytest.mark.parametrize(
    ("fact", "error"),
    [
        (INVENTED, codec.UnknownKind),
        ({"PublicationHere": {"room": "hall"}}, codec.Unreadable),
        ({"Load": {"sessions": "many"}}, codec.Unreadable),
        ({}, codec.Unreadable),
        (7, codec.Unreadable),
    ],
)
def test_a_fact_that_cannot_be_read_leaves_its_number_in_the_sequence(fact: Any, error: type[Exception]) -> None:
    version, plain = msgpack.unpackb(codec.pack_envelope(envelope(LOAD)))
    plain["Envelope"]["fact"] = fact
    skipped: list[codec.Unreadable] = []
    assert codec.unpack_envelope(msgpack.packb([version, plain]), skipped.append) == envelope(None)
    assert [type(each) for each in skipped] == [error]


@given(st.lists(st.sampled_from(["known", "invented", "broken"]), max_size=8))
def test_in_a_snapshot_what_cannot_be_read_is_skipped_alone(kinds: list[str]) -> None:
    version, plain = msgpack.unpackb(codec.pack_answer(SNAPSHOT))
    known = plain["Snapshot"]["facts"][0]
    plain["Snapshot"]["facts"] = [
        {"known": known, "invented": INVENTED, "broken": {"Load": {}}}[kind] for kind in kinds
    ]
    skipped: list[codec.Unreadable] = []
    read = codec.unpack_answer(msgpack.packb([version, plain]), skipped.append)
    assert read == replace(SNAPSHOT, facts=(PUBLICATION,) * kinds.count("known"))
    assert sum(isinstance(each, codec.UnknownKind) for each in skipped) == kinds.count("invented")
    assert len(skipped) == len(kinds) - kinds.count("known")


def test_an_item_of_an_unknown_kind_is_skipped_and_what_holds_it_is_taken() -> None:
    version, plain = msgpack.unpackb(codec.pack_envelope(envelope(PUBLICATION)))
    plain["Envelope"]["fact"]["PublicationHere"]["extensions"].insert(1, {"id": 9, "kind": "later"})
    skipped: list[codec.Unreadable] = []
    assert codec.unpack_envelope(msgpack.packb([version, plain]), skipped.append) == envelope(PUBLICATION)
    version, plain = msgpack.unpackb(codec.pack_record_part(record._FORMATS, FORMATS))
    plain["codecs"].append([{**plain["codecs"][0][0], "name": "later"}, ""])
    read = codec.unpack_record_part(record._FORMATS, msgpack.packb([version, plain]), skipped.append)
    assert read == FORMATS
    assert [type(each) for each in skipped] == [codec.UnknownKind] * 2


def test_a_value_of_an_unknown_kind_in_a_field_refuses_what_holds_the_field_and_nothing_else() -> None:
    skipped: list[codec.Unreadable] = []
    version, plain = msgpack.unpackb(codec.pack_envelope(envelope(PUBLICATION)))
    plain["Envelope"]["fact"]["PublicationHere"]["codec"] = "later"
    assert codec.unpack_envelope(msgpack.packb([version, plain]), skipped.append) == envelope(None)
    version, plain = msgpack.unpackb(codec.pack_rpc(EndsHeard((TOMBSTONE, TOMBSTONE))))
    plain["EndsHeard"]["ends"][0]["protocol"] = "later"
    assert codec.unpack_rpc(msgpack.packb([version, plain]), skipped.append) == EndsHeard((TOMBSTONE,))
    assert [type(each) for each in skipped] == [codec.UnknownKind] * 2


@pytest.mark.parametrize("unpack", [codec.unpack_rpc, codec.unpack_answer, codec.unpack_envelope])
def test_a_message_of_an_unknown_kind_is_told_from_one_that_is_broken(unpack: Callable[[bytes], Any]) -> None:
    with pytest.raises(codec.UnknownKind, match="Invented"):
        unpack(msgpack.packb([1, INVENTED]))


@EVERY
@given(version=LATER.filter(lambda version: version != 1 or version is True))
def test_another_version_is_refused(reader: Reader, version: Any) -> None:
    _, plain = msgpack.unpackb(reader.pack(reader.message))
    with pytest.raises(codec.Unreadable, match="version"):
        reader.unpack(msgpack.packb([version, plain]), never)


@given(st.binary() | LATER.map(msgpack.packb) | LATER.map(lambda plain: msgpack.packb([1, plain])))
def test_nothing_but_unreadable_comes_of_what_is_no_message(packed: bytes) -> None:
    for reader in READERS.values():
        with pytest.raises(codec.Unreadable):
            reader.unpack(packed, never)


def test_a_long_name_of_an_unknown_kind_is_not_repeated_in_full() -> None:
    with pytest.raises(codec.UnknownKind) as refused:
        codec.unpack_rpc(msgpack.packb([1, {"x" * 1_000_000: {}}]))
    assert len(str(refused.value)) < 200
