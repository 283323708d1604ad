"""What a new configuration changes: what takes effect, what needs new workers for it, what waits for the next start.
Pure; must never apply anything. Read next: `master/rollout.py`, by which workers get it.
"""

from dataclasses import dataclass, fields, replace

from millrace.relay.config.model import Config
from millrace.relay.config.parse import Problem, contradictions
from millrace.relay.contract.takeover import FIXED_AT_START

WAIT = frozenset(FIXED_AT_START) | {
    *("workers.pin", "media.receive_buffer_bytes", "media.send_buffer_bytes"),
    *("log.file", "log.format"),
}
"""What sockets, arena and processes were made with, and the log of the master itself."""
MASTERS_OWN = frozenset(
    f"workers.{key}"
    for key in (
        *("respawn_backoff_ms", "respawn_backoff_limit_ms", "quick_death_seconds", "crash_limit", "boot_seconds"),
        *("abort_seconds", "stop_seconds", "drain_seconds", "count"),
    )
)
"""What no worker asks for."""
TOLD = frozenset({"log.level"})
"""What workers are told while they live."""


@dataclass(frozen=True, slots=True)
class Change:
    """What follows from reading the configuration again."""

    in_force: Config
    """The new one, with what waits as it was."""
    applied: tuple[str, ...]
    deferred: tuple[str, ...]
    """Keys that differ and wait for the next start."""
    needs_workers: bool
    """Whether workers have to be replaced for it."""


def compare(old: Config, new: Config) -> Change | tuple[Problem, ...]:
    """Keys are named `section.key`; values are not, as some are secret. Problems when the new configuration does not
    hold together with what has to wait: no keys on sockets that are open to everybody, say.
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
    return Change(in_force, applied, deferred, any(key not in MASTERS_OWN | TOLD for key in applied))
