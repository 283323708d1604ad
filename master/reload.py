"""What a new configuration changes, and which of that needs no new workers. Pure; must never apply anything. Read next:
`master/master.py`, which does.
"""

from dataclasses import dataclass, fields, replace

from relay.config import Config

APPLIED_AT_ONCE = frozenset({"log.level"})
"""All else is baked into sockets, the arena or the workers' own copies."""


@dataclass(frozen=True, slots=True)
class Change:
    """What follows from reading the configuration again."""

    in_force: Config
    """The old one, with what is applied at once."""
    applied: tuple[str, ...]
    deferred: tuple[str, ...]
    """Keys that differ and wait for the next start."""


def compare(old: Config, new: Config) -> Change:
    """Keys are named `section.key`; values are not, as some are secret."""
    differing = [
        f"{section.name}.{key.name}"
        for section in fields(Config)
        for key in fields(getattr(old, section.name))
        if getattr(getattr(old, section.name), key.name) != getattr(getattr(new, section.name), key.name)
    ]
    in_force = replace(old, log=replace(old.log, level=new.log.level))
    applied = tuple(key for key in differing if key in APPLIED_AT_ONCE)
    return Change(in_force, applied, tuple(key for key in differing if key not in APPLIED_AT_ONCE))
