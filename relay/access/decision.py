"""Who may do what in which room: the one place that every protocol asks. Owns the order in which tokens, rules and the
hook decide; must never know SDP, a session or a protocol. Read `relay/access/grants.py`, `relay/access/rules.py` and
`relay/access/hook.py` next, for each of these.

    there is neither a key nor a hook        admitted
    a token of one of our keys grants it     admitted, under the token's identity
    a rule of the configuration allows it    admitted, under a random identity, whatever token is shown
    a token of one of our keys is shown      refused, as the token says
    there is a hook                          as the hook says
    else                                     refused, as the token says
"""

from dataclasses import dataclass

from millrace.relay.access.grants import MAX_TOKEN_CHARS, NOT_OURS, Denial, Grant, check
from millrace.relay.access.hook import Hook, HookGrant
from millrace.relay.access.rules import is_named, is_within
from millrace.relay.config.model import AuthConfig
from millrace.relay.contract.access import Action, HookQuestion, Visitor
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


class Gate:
    """Decides by one configuration, with what its hook has answered."""

    def __init__(self, auth: AuthConfig) -> None:
        self.auth = auth
        self.hook = Hook()

    def decide(self, action: Action, room: str, visitor: Visitor, now: Now) -> Admitted | Refusal | HookQuestion:
        """Whether the visitor may publish in the room or watch it, or why not; or what to ask the hook first."""
        if self.auth.is_open:
            return NAMELESS
        grant = check(visitor.token, self.auth.keys, now.unix)
        denial = grant if isinstance(grant, Denial) else _denial(grant, action, room)
        if denial is None:
            assert isinstance(grant, Grant)
            return Admitted(ParticipantId(grant.identity), grant.sources or (), by_key=True)
        if self._needs_no_token(action, room, visitor):
            return NAMELESS
        if not self._is_for_hook(grant, visitor):
            return Refusal(denial.status, denial.reason, denial.detail)
        question = HookQuestion(action, room, visitor.token, visitor.address, visitor.participant)
        match self.hook.decision(question, now.steady):
            case HookGrant(identity, sources):
                return Admitted(None if identity is None else ParticipantId(identity), sources)
            case None:
                return question
            case refusal:
                return refusal

    def visible_rooms(self, visitor: Visitor, now: Now) -> tuple[str, ...] | Refusal | HookQuestion:
        """Patterns of the rooms that the visitor may see listed, or why the list is refused; or what to ask the hook
        first. Who shows no token is shown the public rooms, and the hook is not asked.
        """
        if self.auth.is_open:
            return ("*",)
        public = self.auth.public_rooms
        grant = check(visitor.token, self.auth.keys, now.unix)
        denial = grant if isinstance(grant, Denial) else grant.join_denial(grant.room)
        if denial is None:
            assert isinstance(grant, Grant)
            return (grant.room, *public)
        refusal = Refusal(denial.status, denial.reason, denial.detail)
        if self._is_for_hook(grant, visitor) and (visitor.token or not public):
            question = HookQuestion(Action.LIST, "", visitor.token, visitor.address)
            decision = self.hook.decision(question, now.steady)
            if decision is None:
                return question
            if isinstance(decision, HookGrant):
                return (*decision.rooms, *public)
            refusal = decision
        return public or refusal

    def _needs_no_token(self, action: Action, room: str, visitor: Visitor) -> bool:
        if action is Action.WATCH:
            return is_named(room, self.auth.public_rooms)
        # A page of another site would publish from inside the network for whoever made that page.
        return not visitor.is_other_site and is_within(visitor.address, self.auth.publish_from)

    def _is_for_hook(self, grant: Grant | Denial, visitor: Visitor) -> bool:
        # What a token of our own keys does not grant, nobody else grants it.
        is_ours = isinstance(grant, Grant) or grant.reason not in NOT_OURS
        return bool(self.auth.hook) and not is_ours and len(visitor.token or "") <= MAX_TOKEN_CHARS


def _denial(grant: Grant, action: Action, room: str) -> Denial | None:
    return grant.publish_denial(room) if action is Action.PUBLISH else grant.subscribe_denial(room)
