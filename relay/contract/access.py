"""What somebody wants in a room, and what shows who that is: the same for every protocol. Owns the shapes; must never
decide anything. Read `relay/access/decision.py` next, which does.
"""

from dataclasses import dataclass
from enum import StrEnum


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
