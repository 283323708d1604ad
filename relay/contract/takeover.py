"""What a master leaves to the next one, so that calls go on: descriptors in a fixed order, and a manifest that says
what they are. Owns that order and the manifest's text; must never open, pass or read a descriptor. Read next:
`master/takeover/predecessor.py`, which finds them, and `workers/orphan.py`, which keeps them.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from millrace.relay.config.model import Config
from millrace.relay.config.rules import MAX_SLOTS
from millrace.relay.contract import facts, layout
from millrace.relay.contract.codec import RECORD_VERSION, RECORD_VERSIONS_READ

VERSION = 2
"""Of the manifest. It rises only when an older program could not go on with what is left: fields, keys and descriptors
that a program does not know are none of its business, and one that is added may be absent.
"""
CONTRACTS = {"estate": VERSION, "arena": layout.VERSION, "facts": facts.VERSION, "kept": RECORD_VERSION}
"""What two programs have to agree on, for one to go on with the sessions of the other. On the wire a manifest is an
`estate` and records of sessions are `kept`.
"""
READ = {
    "estate": range(2, VERSION + 1),
    # The engine maps it as it is.
    "arena": range(layout.VERSION, layout.VERSION + 1),
    "facts": facts.VERSIONS_READ,
    "kept": RECORD_VERSIONS_READ,
}
"""The versions of each contract that this program goes on with. What a manifest does not name has version 0; a contract
that only the manifest names is of a later release, which would have raised one of these if it mattered.
"""
TCP = "tcp"
"""The section of clients' TCP listeners, which all slots share: one each."""
SECTIONS = ("http", "admin", "media", TCP)
"""Whose sockets this program uses."""

FIXED_AT_START = (
    *("http.bind", "http.port", "media.bind", "media.port", "media.steering", "admin.bind", "admin.port"),
    *("media.tcp", "media.tcp_port"),
    *("runtime.directory", *(f"arena.{each.name}" for each in fields(Config().arena))),
)
"""Keys with whose values the sockets and the arena were made. A master that inherits those keeps the old values."""

TAKEOVER_SOCKET, ELIGIBLE, DOWN = "heirs", "places", "down"
"""Names of descriptors, two as masters of before know them, too; the takeover socket's file has the same name."""
_WIRE_NAMES = {"has_takeover_socket": "has_heirs", "fixed": "baked"}
"""Of fields whose names are no longer those of VERSION 2."""
_FIELDS = {wire: name for name, wire in _WIRE_NAMES.items()}


class Unreadable(ValueError):
    """Not a manifest that this program understands; the text says why."""


@dataclass(frozen=True, slots=True)
class SocketGroup:
    """The sockets of one address and port, one for each slot; of `TCP` a single one."""

    section: str
    """One of `SECTIONS`, or of a later release."""
    address: str
    port: int

    def names(self, number: int, slots: int) -> Iterator[str]:
        """Yields its descriptors' names; `number` is its place among the groups."""
        return (f"{self.section}-{number}-{slot}" for slot in range(1 if self.section == TCP else slots))


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything about what is inherited that its descriptors do not say themselves."""

    slots: int
    """How many workers there may be."""
    count: int
    """`workers.count` as it was at the start: a successor whose configuration has another one follows that."""
    groups: tuple[SocketGroup, ...]
    """In the order in which they were bound, by purpose."""
    is_steered: bool
    """There is a flow map, and a map that says which slots the kernel may pick."""
    has_takeover_socket: bool
    """There is a socket at which the next master asks. On the wire: `has_heirs`."""
    directory: str
    """The runtime directory, in which workers find each other's sockets."""
    is_ours: bool
    """True when the server made the directory and removes it at its end."""
    fixed: Mapping[str, Any]
    """The values of `FIXED_AT_START`. A key that is absent came later, and had its default. On the wire: `baked`."""
    certificate_pem: str
    private_key_pem: str
    fingerprint: str
    started_at: float
    descriptors: tuple[str, ...] = ()
    """The names of the descriptors in their order, those of a later release among them. Without it they are
    `own_names`, as with earlier releases.
    """
    has_down: bool = False
    """True when the steering program has a map of slots that are down."""

    def names(self) -> tuple[str, ...]:
        """The descriptors in their order. The manifest itself lies in the first."""
        return self.descriptors or tuple(self.own_names())

    def foreign_names(self) -> list[str]:
        """Descriptors that only a later release knows: they are passed on, as that one may come back."""
        own = set(self.own_names())
        return [name for name in self.names() if name not in own]

    def own_names(self) -> Iterator[str]:
        """The descriptors that this program uses."""
        yield from ("manifest", "lock", "arena")
        yield from (f"doorbell-{slot}" for slot in range(self.slots))
        if self.has_takeover_socket:
            yield TAKEOVER_SOCKET
        if self.is_steered:
            yield from ("flow-map", ELIGIBLE)
        if self.has_down:
            yield DOWN
        for number, group in enumerate(self.groups):
            if group.section in SECTIONS:
                yield from group.names(number, self.slots)
        if any(group.section == TCP for group in self.groups):
            yield from (name for slot in range(self.slots) for name in (f"tcp-inbox-{slot}", f"tcp-door-{slot}"))

    def pack(self) -> bytes:
        """As JSON, the contracts first."""
        content = {_WIRE_NAMES.get(each.name, each.name): getattr(self, each.name) for each in fields(self)}
        content["groups"] = [[group.section, group.address, group.port] for group in self.groups]
        content["descriptors"] = self.names()
        return json.dumps({"contracts": CONTRACTS, **content}).encode()


def unpack(text: bytes) -> Manifest:
    """The manifest that a master has left, perhaps one of another release: what this one does not know is skipped.
    Raises Unreadable.
    """
    try:
        content = json.loads(text)
        for name, versions in READ.items():
            version = content["contracts"].get(name, 0)
            if version not in versions:
                read = " to ".join(str(each) for each in sorted({versions[0], versions[-1]}))
                raise Unreadable(f"it has version {version} of the contract `{name}`, not {read}")
        content = {_FIELDS.get(name, name): value for name, value in content.items()}
        known = {each.name: content[each.name] for each in fields(Manifest) if each.name in content}
        # A later release may say more of a group, at the end.
        known["groups"] = tuple(SocketGroup(*group[: len(fields(SocketGroup))]) for group in content["groups"])
        known["descriptors"] = tuple(known.get("descriptors", ()))
        manifest = Manifest(**known)
        if not 0 < manifest.slots <= MAX_SLOTS:
            raise Unreadable(f"it has {manifest.slots} slots, not 1 to {MAX_SLOTS}")
        names = manifest.names()
        if missing := set(manifest.own_names()) - set(names):
            raise Unreadable(f"it lacks {', '.join(sorted(missing))}")
        if names[0] != "manifest" or len(set(names)) < len(names):
            raise Unreadable("its descriptors stand in no order")
        return replace(manifest, fixed=dict(manifest.fixed))
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise error if isinstance(error, Unreadable) else Unreadable(f"it is no manifest ({error!r})") from error


def fixed_at_start(config: Config) -> dict[str, Any]:
    """The values of `FIXED_AT_START` in this configuration."""
    return {key: _value(config, key) for key in FIXED_AT_START}


def with_inherited(config: Config, manifest: Manifest) -> tuple[Config, tuple[str, ...]]:
    """The configuration with the inherited values of `FIXED_AT_START`, and the keys whose own values must wait."""
    then = {**fixed_at_start(Config()), **manifest.fixed}
    deferred = tuple(key for key in FIXED_AT_START if _plain(_value(config, key)) != _plain(then[key]))
    for key in deferred:
        section, _, name = key.partition(".")
        value = then[key]
        changed = replace(getattr(config, section), **{name: tuple(value) if isinstance(value, list) else value})
        config = replace(config, **{section: changed})
    return config, deferred


def _value(config: Config, key: str) -> Any:
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
