"""The only import of msgpack: packs and unpacks the contracts (commands, events, facts, calls) and refuses what it
does not know. Must never know what a message means. Read `relay/contract/commands.py` next; `tests/contract` holds the
golden bytes.

A dataclass is a map of its fields in their order; where several may stand, it is `{"Name": {field: value}}`. Between
workers a message is `[VERSION, {...}]`, because old and new binaries meet during an upgrade.
"""

import types
from collections.abc import Callable, Iterable
from dataclasses import MISSING, fields
from enum import StrEnum
from functools import cache
from typing import Any, NamedTuple, NewType, Union, cast, get_args, get_origin, get_type_hints

import msgpack  # noqa: TID251

from millrace.relay.contract.commands import Command
from millrace.relay.contract.events import Event
from millrace.relay.contract.facts import VERSION, Envelope
from millrace.relay.contract.rpc import Answer, Call

Plain = Any
"""What msgpack reads and writes: None, bool, int, float, str, bytes, list, dict."""


KEPT_VERSION = 1
"""Of what is kept of a session: a successor after an upgrade gives up what it cannot read."""


class Unreadable(ValueError):
    """Not the message it should be. From the engine that is a bug; from another worker, another version."""


def pack_commands(commands: Iterable[Command]) -> bytes:
    """An array of tagged commands, as `Engine.submit` takes it."""
    return _dump([_COMMAND.pack(command) for command in commands])


def unpack_commands(packed: bytes) -> list[Command]:
    """The inverse of `pack_commands`, for tests and tools."""
    return [cast(Command, _COMMAND.unpack(item)) for item in _as(list, _load(packed))]


def pack_events(events: Iterable[Event]) -> bytes:
    """An array of tagged events, as `Engine.events` gives it; for tests and tools."""
    return _dump([_EVENT.pack(event) for event in events])


def unpack_events(packed: bytes) -> list[Event]:
    """What `Engine.events` gave."""
    return [cast(Event, _EVENT.unpack(item)) for item in _as(list, _load(packed))]


def pack_envelope(envelope: Envelope) -> bytes:
    """A fact for the bus."""
    return _dump([VERSION, _ENVELOPE.pack(envelope)])


def unpack_envelope(packed: bytes) -> Envelope:
    """A fact from the bus."""
    return cast(Envelope, _ENVELOPE.unpack(_load_versioned(packed)))


def pack_call(call: Call) -> bytes:
    """A request to one worker."""
    return _dump([VERSION, _CALL.pack(call)])


def unpack_call(packed: bytes) -> Call:
    """A request of another worker."""
    return cast(Call, _CALL.unpack(_load_versioned(packed)))


def pack_answer(answer: Answer) -> bytes:
    """What a call is answered with."""
    return _dump([VERSION, _ANSWER.pack(answer)])


def unpack_answer(packed: bytes) -> Answer:
    """What another worker answered."""
    return cast(Answer, _ANSWER.unpack(_load_versioned(packed)))


def pack_kept_part(part: "KeptPart", value: Any) -> bytes:
    """Of a session's kept record."""
    return _dump([KEPT_VERSION, part.shape.pack(value)])


def unpack_kept_part(part: "KeptPart", packed: bytes) -> Any:
    """What a predecessor kept, perhaps of another version of the program."""
    return part.shape.unpack(_load_versioned(packed, KEPT_VERSION))


def pack_plain(value: Plain) -> bytes:
    """A value that has no dataclass, such as the engine's configuration."""
    return _dump(value)


def unpack_plain(packed: bytes) -> Plain:
    """A value that has no dataclass, such as the engine's counters."""
    return _load(packed)


class _Shape(NamedTuple):
    """How values of one annotation are packed and unpacked."""

    pack: Callable[[Any], Plain]
    unpack: Callable[[Plain], Any]


class KeptPart:
    """A dataclass that is kept, once examined. A field with a default came later: it is absent where it has that value,
    so that older records are read, and older programs read those of sessions that do without it.
    """

    def __init__(self, annotation: type) -> None:
        whole = _record(annotation)
        hints = get_type_hints(annotation)
        later = {
            field.name: _shape(hints[field.name]).pack(field.default)
            for field in fields(annotation)
            if field.default is not MISSING
        }

        def pack(value: Any) -> Plain:
            packed = whole.pack(value)
            return {name: item for name, item in packed.items() if name not in later or item != later[name]}

        self.shape = _Shape(pack, lambda plain: whole.unpack(later | _as(dict, plain)))


@cache
def _shape(annotation: Any) -> _Shape:
    if isinstance(annotation, NewType):
        return _shape(annotation.__supertype__)
    origin = get_origin(annotation)
    if origin in (types.UnionType, Union):
        members = get_args(annotation)
        if type(None) in members:
            (present,) = (member for member in members if member is not type(None))
            return _optional(_shape(present))
        return _tagged(members)
    if origin is tuple:
        members = get_args(annotation)
        return _array(_shape(members[0])) if members[-1] is Ellipsis else _row([_shape(member) for member in members])
    if issubclass(annotation, StrEnum):
        return _Shape(lambda value: value.value, lambda plain: _enum(annotation, plain))
    if annotation is float:
        return _Shape(float, lambda plain: float(plain) if type(plain) is int else _as(float, plain))
    if annotation in (int, str, bool, bytes):
        return _Shape(lambda value: value, lambda plain: _as(annotation, plain))
    return _record(annotation)


def _optional(shape: _Shape) -> _Shape:
    return _Shape(
        lambda value: None if value is None else shape.pack(value),
        lambda plain: None if plain is None else shape.unpack(plain),
    )


def _array(shape: _Shape) -> _Shape:
    return _Shape(
        lambda value: [shape.pack(item) for item in value],
        lambda plain: tuple(shape.unpack(item) for item in _as(list, plain)),
    )


def _row(shapes: list[_Shape]) -> _Shape:
    def unpack(plain: Plain) -> Any:
        if len(_as(list, plain)) != len(shapes):
            raise Unreadable(f"{len(plain)} items where {len(shapes)} are expected")
        return tuple(shape.unpack(item) for shape, item in zip(shapes, plain, strict=True))

    return _Shape(lambda value: [shape.pack(item) for shape, item in zip(shapes, value, strict=True)], unpack)


def _record(annotation: Any) -> _Shape:
    hints = get_type_hints(annotation)
    shapes = {field.name: _shape(hints[field.name]) for field in fields(annotation)}

    def pack(value: Any) -> Plain:
        return {name: shape.pack(getattr(value, name)) for name, shape in shapes.items()}

    def unpack(plain: Plain) -> Any:
        if _as(dict, plain).keys() != shapes.keys():
            raise Unreadable(f"{annotation.__name__}: the fields differ by {sorted(plain.keys() ^ shapes.keys())}")
        return annotation(**{name: shape.unpack(plain[name]) for name, shape in shapes.items()})

    return _Shape(pack, unpack)


def _tagged(members: Iterable[Any]) -> _Shape:
    shapes = {member.__name__: _record(member) for member in members}

    def pack(value: Any) -> Plain:
        name = type(value).__name__
        return {name: shapes[name].pack(value)}

    def unpack(plain: Plain) -> Any:
        if len(_as(dict, plain)) != 1:
            raise Unreadable(f"{len(plain)} names where one is expected")
        ((name, inner),) = plain.items()
        if name not in shapes:
            raise Unreadable(f"unknown message {name!r}")
        return shapes[name].unpack(inner)

    return _Shape(pack, unpack)


def _enum(annotation: type[StrEnum], plain: Plain) -> StrEnum:
    try:
        return annotation(_as(str, plain))
    except ValueError as error:
        raise Unreadable(str(error)) from None


def _as(kind: type, plain: Plain) -> Any:
    # `type is`, because a bool is an int.
    if type(plain) is not kind:
        raise Unreadable(f"{type(plain).__name__} where {kind.__name__} is expected")
    return plain


def _dump(plain: Plain) -> bytes:
    return msgpack.packb(plain)


def _load(packed: bytes) -> Plain:
    try:
        return msgpack.unpackb(packed)
    except (ValueError, msgpack.UnpackException) as error:
        raise Unreadable(f"not msgpack: {error}") from None


def _load_versioned(packed: bytes, version: int = VERSION) -> Plain:
    message = _as(list, _load(packed))
    if len(message) != 2 or message[0] != version:
        raise Unreadable(f"version {message[0] if message else None!r} where {version} is expected")
    return message[1]


_COMMAND = _shape(Command)
_EVENT = _shape(Event)
_ENVELOPE = _tagged([Envelope])
_CALL = _shape(Call)
_ANSWER = _shape(Answer)
