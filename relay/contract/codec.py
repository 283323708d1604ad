"""The only import of msgpack: packs and unpacks the contracts (commands, events, facts, calls, session records). Must
never know what a message means. Read `relay/contract/commands.py` next; `tests/contract` holds the golden bytes.

A dataclass is a map of its fields in their order; where several may stand, it is `{"Name": {field: value}}`. Between
workers a message is `[VERSION, {...}]`, because old and new binaries meet during an upgrade.

Commands and events are of one process and one build: whatever is not known there is a defect, and refused. All others
may be of a later or an earlier release, and their readers forgive:

    a field, or an item at a row's end, that is not known    skipped
    a field that is absent                                   its default; without one the message is refused
    an item of a list, of a kind that is not known           skipped and counted, and the other items are taken
    the like in a field                                      refuses what holds the field, up to the next list
    another version                                          refused, unless the reader's range has it
"""

import types
from collections.abc import Callable, Iterable
from dataclasses import MISSING, Field, fields
from enum import StrEnum
from functools import cache
from typing import Any, NamedTuple, NewType, Union, cast, get_args, get_origin, get_type_hints

import msgpack  # noqa: TID251

from millrace.relay.contract.commands import Command
from millrace.relay.contract.events import Event
from millrace.relay.contract.facts import VERSION, VERSIONS_READ, Envelope
from millrace.relay.contract.rpc import Answer, Rpc

Plain = Any
"""What msgpack reads and writes: None, bool, int, float, str, bytes, list, dict."""


RECORD_VERSION = 1
"""Of session records. It rises when an older program could not go on with a session that has such a record; a field
with a default is no cause.
"""
RECORD_VERSIONS_READ = range(1, RECORD_VERSION + 1)


class Unreadable(ValueError):
    """The bytes are not the expected message. From the engine that is a bug; from another worker, another version."""


class UnknownKind(Unreadable):
    """A message or a value of a kind that this program does not know; a later release may have it."""


Skip = Callable[[Unreadable], None]
"""Is told of each part of a message that was skipped, with the reason."""


def ignore(_: Unreadable) -> None:
    """A `Skip` that counts nothing."""


def pack_commands(commands: Iterable[Command]) -> bytes:
    """An array of tagged commands, as `Engine.submit` takes it."""
    return _dump([_COMMAND.pack(command) for command in commands])


def unpack_commands(packed: bytes) -> list[Command]:
    """The inverse of `pack_commands`, for tests and tools."""
    return [cast(Command, _COMMAND.unpack(item, ignore)) for item in _as(list, _load(packed))]


def pack_events(events: Iterable[Event]) -> bytes:
    """An array of tagged events, as `Engine.events` gives it; for tests and tools."""
    return _dump([_EVENT.pack(event) for event in events])


def unpack_events(packed: bytes) -> list[Event]:
    """Unpacks what `Engine.events` gave. Raises Unreadable."""
    return [cast(Event, _EVENT.unpack(item, ignore)) for item in _as(list, _load(packed))]


def pack_envelope(envelope: Envelope) -> bytes:
    """Packs a fact for the bus."""
    return _dump([VERSION, _ENVELOPE.pack(envelope)])


def unpack_envelope(packed: bytes, skip: Skip = ignore) -> Envelope:
    """Unpacks a fact from the bus. One that cannot be read is None in the envelope, whose sequence number counts all
    the same. Raises Unreadable.
    """
    return cast(Envelope, _ENVELOPE.unpack(_load_versioned(packed, VERSIONS_READ), skip))


def pack_rpc(rpc: Rpc) -> bytes:
    """Packs a request to one worker."""
    return _dump([VERSION, _RPC.pack(rpc)])


def unpack_rpc(packed: bytes, skip: Skip = ignore) -> Rpc:
    """Unpacks another worker's request. Raises Unreadable."""
    return cast(Rpc, _RPC.unpack(_load_versioned(packed, VERSIONS_READ), skip))


def pack_answer(answer: Answer) -> bytes:
    """Packs the answer to another worker's request."""
    return _dump([VERSION, _ANSWER.pack(answer)])


def unpack_answer(packed: bytes, skip: Skip = ignore) -> Answer:
    """Unpacks another worker's answer. Raises Unreadable."""
    return cast(Answer, _ANSWER.unpack(_load_versioned(packed, VERSIONS_READ), skip))


def pack_record_part(part: "RecordPart", value: Any) -> bytes:
    """Packs one part of a session's record."""
    return _dump([RECORD_VERSION, part.shape.pack(value)])


def unpack_record_part(part: "RecordPart", packed: bytes, skip: Skip = ignore) -> Any:
    """Unpacks what `pack_record_part` made, perhaps that of another release. Raises Unreadable."""
    return part.shape.unpack(_load_versioned(packed, RECORD_VERSIONS_READ), skip)


def pack_plain(value: Plain) -> bytes:
    """Packs a value that has no dataclass, such as the engine's configuration."""
    return _dump(value)


def unpack_plain(packed: bytes) -> Plain:
    """Unpacks a value that has no dataclass, such as the engine's counters. Raises Unreadable."""
    return _load(packed)


class _Shape(NamedTuple):
    """How values of one annotation are packed and unpacked."""

    pack: Callable[[Any], Plain]
    unpack: Callable[[Plain, Skip], Any]
    is_message: bool = False
    """One of several kinds: in a list it is skipped for itself, whatever is wrong with it."""


class RecordPart:
    """A dataclass that is kept, once examined. A field with a default was added later. It is left out while it has that
    default, so that a record does not grow by what a session does not use.
    """

    def __init__(self, annotation: type) -> None:
        whole = _record(annotation, forgives=True)
        hints = get_type_hints(annotation)
        later = {
            field.name: _shape(hints[field.name], forgives=True).pack(_default(field))
            for field in fields(annotation)
            if _has_default(field)
        }

        def pack(value: Any) -> Plain:
            packed = whole.pack(value)
            return {name: item for name, item in packed.items() if name not in later or item != later[name]}

        self.shape = _Shape(pack, whole.unpack)


@cache
def _shape(annotation: Any, forgives: bool) -> _Shape:
    if isinstance(annotation, NewType):
        return _shape(annotation.__supertype__, forgives)
    origin = get_origin(annotation)
    if origin in (types.UnionType, Union):
        present = tuple(member for member in get_args(annotation) if member is not type(None))
        shape = _shape(present[0], forgives) if len(present) == 1 else _tagged(present, forgives)
        return shape if len(present) == len(get_args(annotation)) else _optional(shape, forgives)
    if origin is tuple:
        members = get_args(annotation)
        if members[-1] is Ellipsis:
            return _array(_shape(members[0], forgives), forgives)
        return _row([_shape(member, forgives) for member in members], forgives)
    if issubclass(annotation, StrEnum):
        return _Shape(lambda value: value.value, lambda plain, _: _enum(annotation, plain))
    if annotation is float:
        return _Shape(float, lambda plain, _: float(plain) if type(plain) is int else _as(float, plain))
    if annotation in (int, str, bool, bytes):
        return _Shape(lambda value: value, lambda plain, _: _as(annotation, plain))
    return _record(annotation, forgives)


def _optional(shape: _Shape, forgives: bool) -> _Shape:
    def unpack(plain: Plain, skip: Skip) -> Any:
        if plain is None:
            return None
        try:
            return shape.unpack(plain, skip)
        except Unreadable as error:
            if not (forgives and shape.is_message):
                raise
            skip(error)
            return None

    return _Shape(lambda value: None if value is None else shape.pack(value), unpack)


def _array(shape: _Shape, forgives: bool) -> _Shape:
    skipped = () if not forgives else Unreadable if shape.is_message else UnknownKind

    def unpack(plain: Plain, skip: Skip) -> Any:
        items = []
        for item in _as(list, plain):
            try:
                items.append(shape.unpack(item, skip))
            except skipped as error:
                skip(error)
        return tuple(items)

    return _Shape(lambda value: [shape.pack(item) for item in value], unpack)


def _row(shapes: list[_Shape], forgives: bool) -> _Shape:
    def unpack(plain: Plain, skip: Skip) -> Any:
        has = len(_as(list, plain))
        if has < len(shapes) or (has > len(shapes) and not forgives):
            raise Unreadable(f"{has} items where {len(shapes)} are expected")
        return tuple(shape.unpack(item, skip) for shape, item in zip(shapes, plain, strict=False))

    return _Shape(lambda value: [shape.pack(item) for shape, item in zip(shapes, value, strict=True)], unpack)


def _record(annotation: Any, forgives: bool) -> _Shape:
    hints = get_type_hints(annotation)
    shapes = {field.name: _shape(hints[field.name], forgives) for field in fields(annotation)}
    needed = shapes.keys() - {field.name for field in fields(annotation) if forgives and _has_default(field)}

    def pack(value: Any) -> Plain:
        return {name: shape.pack(getattr(value, name)) for name, shape in shapes.items()}

    def unpack(plain: Plain, skip: Skip) -> Any:
        names = _as(dict, plain).keys()
        if not names >= needed or not (forgives or names <= shapes.keys()):
            differing = needed - names if forgives else names ^ shapes.keys()
            raise Unreadable(f"{annotation.__name__}: the fields differ by {sorted(map(str, differing))}"[:256])
        return annotation(**{name: shape.unpack(plain[name], skip) for name, shape in shapes.items() if name in plain})

    return _Shape(pack, unpack)


def _has_default(field: "Field[Any]") -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


def _default(field: "Field[Any]") -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _tagged(members: Iterable[Any], forgives: bool) -> _Shape:
    shapes = {member.__name__: _record(member, forgives) for member in members}

    def pack(value: Any) -> Plain:
        name = type(value).__name__
        return {name: shapes[name].pack(value)}

    def unpack(plain: Plain, skip: Skip) -> Any:
        if len(_as(dict, plain)) != 1:
            raise Unreadable(f"{len(plain)} names where one is expected")
        ((name, inner),) = plain.items()
        if name not in shapes:
            raise UnknownKind(f"unknown message {str(name)[:64]!r}")
        return shapes[name].unpack(inner, skip)

    return _Shape(pack, unpack, is_message=True)


def _enum(annotation: type[StrEnum], plain: Plain) -> StrEnum:
    try:
        return annotation(_as(str, plain))
    except ValueError as error:
        raise error if isinstance(error, Unreadable) else UnknownKind(str(error)[:128]) from None


def _as(kind: type, plain: Plain) -> Any:
    # `type is`, because a bool is an int.
    if type(plain) is not kind:
        raise Unreadable(f"{type(plain).__name__} where {kind.__name__} is expected")
    return plain


def _dump(plain: Plain) -> bytes:
    return msgpack.packb(plain)


def _load(packed: bytes) -> Plain:
    try:
        # In a field that is not known, a map may have keys of any kind.
        return msgpack.unpackb(packed, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise Unreadable(f"not msgpack: {error}") from None


def _load_versioned(packed: bytes, versions: range) -> Plain:
    message = _as(list, _load(packed))
    version = message[0] if message else None
    if len(message) < 2 or type(version) is not int or version not in versions:
        raise Unreadable(f"version {str(version)[:16]} where {versions[0]} to {versions[-1]} are read")
    return message[1]


_COMMAND = _shape(Command, forgives=False)
_EVENT = _shape(Event, forgives=False)
_ENVELOPE = _tagged([Envelope], forgives=True)
_RPC = _shape(Rpc, forgives=True)
_ANSWER = _shape(Answer, forgives=True)
