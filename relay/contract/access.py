"""What somebody wants in a room, and what shows who that is: the same for every protocol. Owns the shapes; must never
decide anything. Read `relay/access/decision.py` next, which does.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class Action(StrEnum):
    """What a visitor wants."""

    PUBLISH = "publish"
    WATCH = "watch"
    LIST = "list"
    """To see which rooms there are."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """What a request shows of who sent it."""

    token: str | None = None
    address: str = ""
    """The client's IP address; empty when a worker of an earlier release has passed the request on."""
    is_other_site: bool = False
    """True when a web page of another site has sent the request, with its visitor's address."""
    participant: str | None = None
    """Whom it is to watch, for the hook."""


@dataclass(frozen=True, slots=True)
class HookQuestion:
    """What the operator's hook is asked: whether somebody may do something."""

    action: Action
    room: str
    """Empty for LIST."""
    token: str | None
    address: str
    participant: str | None = None
    """WATCH: whom of the room; None for its first publisher."""
    identity: str | None = None
    """The name under which the client asks to be in the room; None with WHIP and WHEP, which have none."""


@dataclass(frozen=True, slots=True)
class HookReplied:
    """An answer of HTTP, not yet read."""

    status: int
    body: bytes


class HookOutcome(StrEnum):
    """How a question ended: the label of `millrace_hook_answers_total`."""

    GRANTED = "granted"
    REFUSED = "refused"
    TIMEOUT = "timeout"
    """Nothing came within `auth.hook_timeout_ms`."""
    UNREACHABLE = "unreachable"
    """No connection, no valid certificate, or the connection broke."""
    UNREADABLE = "unreadable"
    """An answer that says neither yes nor no."""


HookFailure = Literal[HookOutcome.TIMEOUT, HookOutcome.UNREACHABLE, HookOutcome.UNREADABLE]
