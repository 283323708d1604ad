"""Who may do what in which room: the one function that every protocol asks. Owns the order in which tokens and rules
decide; must never know SDP, a session or a protocol. Read `relay/access/grants.py` and `relay/access/rules.py` next,
for each of them.

    a token of one of our keys grants it     admitted, under the token's identity
    a rule of the configuration allows it    admitted, under a random identity, whatever token is shown
    else                                     refused, as the token says
"""

from dataclasses import dataclass

from millrace.relay.access.grants import Denial, Grant, check
from millrace.relay.access.rules import is_named, is_within
from millrace.relay.config.model import AuthConfig
from millrace.relay.contract.access import Action, Visitor
from millrace.relay.contract.clock import Now
from millrace.relay.contract.ids import ParticipantId
from millrace.relay.contract.refusal import Refusal


@dataclass(frozen=True, slots=True)
class Admitted:
    """Somebody may do what was asked for."""

    identity: ParticipantId | None = None
    """None for somebody without a name."""
    sources: tuple[str, ...] = ()
    """What may be published, as in `Grant.sources`."""
    by_key: bool = False
    """True when a token of one of our keys has shown who that is. Later requests for the session need such a token."""


NAMELESS = Admitted()


def decide(action: Action, room: str, visitor: Visitor, auth: AuthConfig, now: Now) -> Admitted | Refusal:
    """Whether the visitor may publish in the room or watch it, or why not."""
    if not auth.keys:
        return NAMELESS
    grant = check(visitor.token, auth.keys, now.unix)
    denial = grant if isinstance(grant, Denial) else _denial(grant, action, room)
    if denial is None:
        assert isinstance(grant, Grant)
        return Admitted(ParticipantId(grant.identity), grant.sources or (), by_key=True)
    if _needs_no_token(action, room, visitor, auth):
        return NAMELESS
    return Refusal(denial.status, denial.reason, denial.detail)


def visible_rooms(visitor: Visitor, auth: AuthConfig, now: Now) -> tuple[str, ...] | Refusal:
    """Patterns of the rooms that the visitor may see listed, or why the list is refused."""
    if not auth.keys:
        return ("*",)
    grant = check(visitor.token, auth.keys, now.unix)
    denial = grant if isinstance(grant, Denial) else grant.join_denial(grant.room)
    if denial is None:
        assert isinstance(grant, Grant)
        return (grant.room, *auth.public_rooms)
    if auth.public_rooms:
        return auth.public_rooms
    return Refusal(denial.status, denial.reason, denial.detail)


def _denial(grant: Grant, action: Action, room: str) -> Denial | None:
    return grant.publish_denial(room) if action is Action.PUBLISH else grant.subscribe_denial(room)


def _needs_no_token(action: Action, room: str, visitor: Visitor, auth: AuthConfig) -> bool:
    if action is Action.WATCH:
        return is_named(room, auth.public_rooms)
    # A page of another site would publish from inside the network for whoever made that page.
    return action is Action.PUBLISH and not visitor.is_other_site and is_within(visitor.address, auth.publish_from)
