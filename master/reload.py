"""What a new configuration changes: which keys take effect, whether they need new workers, which keys wait for the next
start. Pure; must never apply a change. Read next: `master/rollout.py`, by which workers get the new configuration.
"""

from dataclasses import dataclass, fields, replace

from millrace.relay.config.model import Config
from millrace.relay.config.parse import Problem, contradictions
from millrace.relay.contract.takeover import FIXED_AT_START

WAIT = frozenset(FIXED_AT_START) | {
    *("workers.pin", "media.receive_buffer_bytes", "media.send_buffer_bytes"),
    *("log.file", "log.format"),
}
"""Keys that wait for the next start: sockets, arena and processes were made with them, and the log is the master's."""
MASTERS_OWN = frozenset(
    f"workers.{key}"
    for key in (
        *("respawn_backoff_ms", "respawn_backoff_limit_ms", "quick_death_seconds", "crash_limit", "boot_seconds"),
        *("abort_seconds", "stop_seconds", "drain_seconds", "count"),
    )
)
"""Keys that no worker reads."""
IN_SLOT_TABLE = frozenset({"log.level"})
"""Keys that workers follow by the slot table, without a new start."""


@dataclass(frozen=True, slots=True)
class Change:
    """What follows from a new configuration."""

    in_force: Config
    """The new configuration, with the old values of the keys that wait."""
    applied: tuple[str, ...]
    """Keys that differ and take effect."""
    deferred: tuple[str, ...]
    """Keys that differ and wait for the next start."""
    needs_workers: bool
    """True when workers have to be replaced for it."""


def compare(old: Config, new: Config) -> Change | tuple[Problem, ...]:
    """Returns the change, or problems when the new configuration contradicts the values that have to wait: for example
    no keys, on sockets that other machines can reach. Keys are named `section.key`; values are not, as some are secret.
    """
    differing: list[str] = []
    sections = {}
    for section in fields(Config):
        before, after = getattr(old, section.name), getattr(new, section.name)
        changed = [key.name for key in fields(before) if getattr(before, key.name) != getattr(after, key.name)]
        differing += (f"{section.name}.{key}" for key in changed)
        kept = {key: getattr(before, key) for key in changed if f"{section.name}.{key}" in WAIT}
        sections[section.name] = replace(after, **kept)
    in_force = Config(**sections)
    if problems := tuple(contradictions(in_force)):
        return problems
    applied = tuple(key for key in differing if key not in WAIT)
    deferred = tuple(key for key in differing if key in WAIT)
    return Change(in_force, applied, deferred, any(key not in MASTERS_OWN | IN_SLOT_TABLE for key in applied))
