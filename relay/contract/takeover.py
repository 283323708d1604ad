"""What a master leaves to the next one, so that calls go on: descriptors in a fixed order, and a manifest that says
what they are. Owns that order and the manifest's text; must never open, pass or read a descriptor. Read next:
`master/takeover/predecessor.py`, which finds them, and `workers/orphan.py`, which keeps them.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from millrace.relay.config.model import Config
from millrace.relay.contract import facts, layout
from millrace.relay.contract.codec import RECORD_VERSION

VERSION = 2
"""Of the manifest and of the order of the descriptors."""
CONTRACTS = {"estate": VERSION, "arena": layout.VERSION, "facts": facts.VERSION, "kept": RECORD_VERSION}
"""What two programs have to agree on, for one to go on with the sessions of the other. On the wire a manifest is an
`estate` and records of sessions are `kept`.
"""

FIXED_AT_START = (
    *("http.bind", "http.port", "media.bind", "media.port", "media.steering", "admin.bind", "admin.port"),
    *("runtime.directory", *(f"arena.{each.name}" for each in fields(Config().arena))),
)
"""Keys with whose values the sockets and the arena were made. A master that inherits those keeps the old values."""

TAKEOVER_SOCKET, ELIGIBLE = "heirs", "places"
"""Names of descriptors as masters of before know them, too; the takeover socket's file has the same name."""
_WIRE_NAMES = {"has_takeover_socket": "has_heirs", "fixed": "baked"}
"""Of fields whose names are no longer those of VERSION 2."""
_FIELDS = {wire: name for name, wire in _WIRE_NAMES.items()}


class Unreadable(ValueError):
    """Not a manifest that this program understands; the text says why."""


@dataclass(frozen=True, slots=True)
class SocketGroup:
    """The sockets of one address and port, one for each slot."""

    section: str
    """`http`, `admin` or `media`."""
    address: str
    port: int


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
    """The values of `FIXED_AT_START`. On the wire: `baked`."""
    certificate_pem: str
    private_key_pem: str
    fingerprint: str
    started_at: float

    def names(self) -> Iterator[str]:
        """The descriptors in their order. The manifest itself lies in the first."""
        yield from ("manifest", "lock", "arena")
        yield from (f"doorbell-{slot}" for slot in range(self.slots))
        if self.has_takeover_socket:
            yield TAKEOVER_SOCKET
        if self.is_steered:
            yield from ("flow-map", ELIGIBLE)
        for number, group in enumerate(self.groups):
            yield from (f"{group.section}-{number}-{slot}" for slot in range(self.slots))

    def pack(self) -> bytes:
        """As JSON, the contracts first."""
        content = {_WIRE_NAMES.get(each.name, each.name): getattr(self, each.name) for each in fields(self)}
        content["groups"] = [[group.section, group.address, group.port] for group in self.groups]
        return json.dumps({"contracts": CONTRACTS, **content}).encode()


def unpack(text: bytes) -> Manifest:
    """The manifest that a master has left, perhaps one of another version. Raises Unreadable."""
    try:
        content = json.loads(text)
        contracts = content.pop("contracts")
        for name, version in CONTRACTS.items():
            if contracts.get(name) != version:
                raise Unreadable(f"it has version {contracts.get(name)} of the contract `{name}`, not {version}")
        groups = tuple(SocketGroup(*group) for group in content.pop("groups"))
        manifest = Manifest(groups=groups, **{_FIELDS.get(name, name): value for name, value in content.items()})
        if missing := set(FIXED_AT_START) - set(manifest.fixed):
            raise Unreadable(f"it lacks {', '.join(sorted(missing))}")
        return manifest
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise error if isinstance(error, Unreadable) else Unreadable(f"it is no manifest ({error!r})") from error


def fixed_at_start(config: Config) -> dict[str, Any]:
    """The values of `FIXED_AT_START` in this configuration."""
    return {key: _value(config, key) for key in FIXED_AT_START}


def with_inherited(config: Config, manifest: Manifest) -> tuple[Config, tuple[str, ...]]:
    """The configuration with the inherited values of `FIXED_AT_START`, and the keys whose own values must wait."""
    deferred = tuple(key for key in FIXED_AT_START if _plain(_value(config, key)) != _plain(manifest.fixed[key]))
    for key in deferred:
        section, _, name = key.partition(".")
        value = manifest.fixed[key]
        changed = replace(getattr(config, section), **{name: tuple(value) if isinstance(value, list) else value})
        config = replace(config, **{section: changed})
    return config, deferred


def _value(config: Config, key: str) -> Any:
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
