"""The control plane of one worker as a reducer: an input and the time go in, effects come out. Owns the tables of
sessions, the directory and the numbering of facts; must never wait, read a clock or draw a random number. Read
`relay/opening.py` (offers), `relay/room.py` (who watches whom) and `relay/directory.py` (what other workers said) next.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from relay.admission import admit, deny_touch, room_name, session_slot
from relay.answer import Candidate
from relay.commands import CloseTransport, Command, RestartIce, Unpublish
from relay.config import Config
from relay.counters import ENGINE_REFUSED, Counters
from relay.directory import Change, Directory
from relay.effects import (
    Announce,
    AskSnapshot,
    CloseRoomEverywhere,
    Deleted,
    Effect,
    EngineRefused,
    EngineSaid,
    FactHeard,
    Input,
    Offered,
    PassOn,
    Patched,
    Protocol,
    Reply,
    RoomClosedElsewhere,
    RoomDeleted,
    RoomsAsked,
    SessionAsked,
    SessionEnded,
    SessionOpened,
    SlotChanged,
    SnapshotHeard,
    Submit,
    Ticked,
)
from relay.events import (
    CommandFailed,
    Event,
    PublicationEnded,
    PublicationStarted,
    TransportClosed,
    TransportConnected,
    TransportReport,
    TransportStalled,
)
from relay.facts import (
    Envelope,
    Fact,
    Load,
    ParticipantGone,
    ParticipantHere,
    PublicationGone,
    PublicationHere,
    Snapshot,
)
from relay.fragment import restart_answer
from relay.ids import Incarnation, ParticipantId, PublicationId, RequestId, RoomName, Slot
from relay.negotiation import host_candidates
from relay.numbers import Numbers, Random
from relay.opening import Opened, Opening, link_headers
from relay.patch import Trickle, read_patch
from relay.problems import json_reply, problem, session_unknown
from relay.refusal import Refusal
from relay.reports import Reports
from relay.room import feed, is_newer, publications_for
from relay.sdp import parse_offer
from relay.sdp_lines import SdpLimits
from relay.sessions import Session, Sessions
from relay.views import room_view, session_view, tombstone_view

OPENING_COMMANDS = frozenset({"OpenTransport", "Publish", "Subscribe"})
"""Without them a session is not what its answer promised. Of the others' failure it can live on."""


@dataclass(frozen=True, slots=True)
class Reach:
    """How clients reach this worker's media."""

    fingerprint: str
    """As it stands after `a=fingerprint:`."""
    addresses: Sequence[tuple[str, int]]
    """The most wanted first."""


class Control:
    """One worker's control plane. Every method returns at once."""

    def __init__(self, config: Config, slot: Slot, incarnation: Incarnation, reach: Reach, random: Random) -> None:
        self.counters = Counters()
        self._config = config
        self._slot = slot
        self._incarnation = incarnation
        self._sequence = 0
        self._draining = False
        self._directory = Directory(slot)
        self._sessions = Sessions()
        self._reports = Reports()
        self._numbers = Numbers(random, slot, config.arena.logs_per_slot)
        candidates: tuple[Candidate, ...] = host_candidates(reach.addresses)
        self._opening = Opening(self._numbers, reach.fingerprint, candidates, config.limits.publications_per_worker)
        self._sdp_limits = SdpLimits(config.limits.sdp_bytes, config.limits.sdp_lines, config.limits.m_lines)
        self._links = link_headers(config.ice.servers)
        # Of the input that is being handled.
        self._now = 0.0
        self._effects: list[Effect] = []
        self._touched: set[RoomName] = set()

    def handle(self, input: Input, now: float) -> list[Effect]:  # noqa: A002 - the word of the contract
        """What is to be done about one input at Unix time `now`, in order."""
        return self._reduce(lambda: self._handle(input), now)

    def drain(self, now: float) -> list[Effect]:
        """Takes no more sessions and closes those that are open. Run the effects, then stop."""
        return self._reduce(self._drain, now)

    def snapshot(self) -> Snapshot:
        """The answer to another worker's SnapshotAsked."""
        return Snapshot(self._slot, self._incarnation, self._sequence, self._directory.own_facts())

    def loads(self) -> dict[Slot, Load]:
        """The last Load of each living worker, for the metrics of the whole box."""
        return self._directory.loads()

    @property
    def directory(self) -> Directory:
        """To look at."""
        return self._directory

    @property
    def sessions(self) -> Sessions:
        """To look at."""
        return self._sessions

    def _reduce(self, step: Callable[[], None], now: float) -> list[Effect]:
        self._now, self._effects, self._touched = now, [], set()
        step()
        # Once for each input: what came and went within it is never seen by a viewer.
        for room in self._touched:
            self._feed(room, [s for s in self._sessions.in_room(room) if s.protocol is Protocol.WHEP])
        return self._effects

    def _handle(self, input: Input) -> None:  # noqa: A002
        match input:
            case Offered():
                self._offered(input)
            case Patched():
                self._patched(input)
            case Deleted():
                self._deleted(input)
            case RoomsAsked():
                self._rooms_asked(input)
            case RoomDeleted():
                self._room_deleted(input)
            case SessionAsked():
                self._session_asked(input)
            case EngineSaid():
                self._engine_said(input.event)
            case FactHeard():
                self._take(input.envelope.slot, self._directory.handle_envelope(input.envelope, self._now))
            case SnapshotHeard():
                self._take(input.snapshot.slot, self._directory.handle_snapshot(input.snapshot, self._now))
            case SlotChanged():
                self._take(input.slot, self._directory.handle_slot(input.slot, input.incarnation, self._now))
            case RoomClosedElsewhere():
                self._close_room(RoomName(input.room))
            case Ticked():
                self._ticked()

    # --- HTTP

    def _offered(self, asked: Offered) -> None:
        opened = self._open(asked)
        if isinstance(opened, Refusal):
            self._refuse(asked.request, opened)
            return
        session = opened.session
        self._sessions.add(session)
        self.counters.opened(session.protocol)
        self._submit(*opened.commands)
        publishes = session.protocol is Protocol.WHIP
        self._announce(ParticipantHere(session.room, session.participant, session.id, publishes, self._now))
        for publication in session.publications.values():
            self._announce(publication)
        if not publishes:
            self._feed(session.room, [session])
        self._effects.append(SessionOpened(session.id, session.protocol, session.room, session.participant))
        headers = (
            ("Content-Type", "application/sdp"),
            ("Location", f"/{session.protocol}/{session.room}/{session.id}"),
            ("ETag", session.etag),
            ("Accept-Patch", "application/trickle-ice-sdpfrag"),
            *self._links,
        )
        self._effects.append(Reply(asked.request, 201, headers, opened.answer.encode()))

    def _open(self, asked: Offered) -> Opened | Refusal:
        if self._draining:
            return Refusal(503, "stopping", "This worker is stopping.")
        if len(self._sessions) >= self._config.limits.sessions_per_worker:
            return Refusal(503, "sessions-full", "This worker takes no further session now.")
        guest = admit(asked, self._config.auth.keys, self._numbers.participant, self._now)
        if isinstance(guest, Refusal):
            return guest
        offer = parse_offer(asked.sdp, self._sdp_limits)
        if isinstance(offer, Refusal):
            return offer
        if guest.protocol is Protocol.WHIP:
            return self._opening.publisher(guest, offer, self._sessions.publications)
        return self._opening.viewer(guest, offer, self._watched(guest.room, guest.watches))

    def _patched(self, asked: Patched) -> None:
        session = self._find(asked.request, asked.session)
        if session is None:
            return
        denial = deny_touch(session, asked.token, self._config.auth.keys, self._now)
        if denial is not None:
            self._refuse(asked.request, denial)
            return
        patch = read_patch(session, asked.if_match, asked.fragment, self._sdp_limits)
        if isinstance(patch, Refusal):
            self._refuse(asked.request, patch)
            return
        if isinstance(patch, Trickle):
            self._effects.append(Reply(asked.request, 204))
            return
        local = self._opening.local()
        session.remote_ufrag, session.remote_pwd = patch.remote_ufrag, patch.remote_pwd
        session.etag = self._numbers.etag()
        self._submit(RestartIce(session.transport, local.ufrag, local.pwd, patch.remote_ufrag, patch.remote_pwd))
        self.counters.count("ice_restarts")
        headers = (("Content-Type", "application/trickle-ice-sdpfrag"), ("ETag", session.etag))
        body = restart_answer(patch.fragment, session.mids, local).encode()
        self._effects.append(Reply(asked.request, 200, headers, body))

    def _deleted(self, asked: Deleted) -> None:
        session = self._find(asked.request, asked.session)
        if session is None:
            return
        if not asked.by_admin:
            denial = deny_touch(session, asked.token, self._config.auth.keys, self._now)
            if denial is not None:
                self._refuse(asked.request, denial)
                return
        self._close(session, "deleted_by_admin" if asked.by_admin else "deleted")
        self._effects.append(Reply(asked.request, 200))

    def _rooms_asked(self, asked: RoomsAsked) -> None:
        if asked.room is None:
            rooms = [room_view(name, room, asked.with_sessions) for name, room in self._directory.rooms()]
            self._effects.append(json_reply(asked.request, sorted(rooms, key=lambda view: str(view["name"]))))
            return
        name = room_name(asked.room)
        room = None if name is None else self._directory.room(name)
        if name is None or room is None:
            self._refuse(asked.request, Refusal(404, "room-unknown", "Nobody is in a room of this name."))
            return
        self._effects.append(json_reply(asked.request, room_view(name, room, asked.with_sessions)))

    def _room_deleted(self, asked: RoomDeleted) -> None:
        name = room_name(asked.room)
        if name is None or self._directory.room(name) is None:
            self._refuse(asked.request, Refusal(404, "room-unknown", "Nobody is in a room of this name."))
            return
        self._effects.append(CloseRoomEverywhere(name))
        self._close_room(name)
        self._effects.append(Reply(asked.request, 204))

    def _session_asked(self, asked: SessionAsked) -> None:
        named = session_slot(asked.session)
        tombstone = None if named is None else self._sessions.tombstone(named[0])
        if tombstone is not None:
            self._effects.append(json_reply(asked.request, tombstone_view(tombstone)))
            return
        session = self._find(asked.request, asked.session)
        if session is None:
            return
        command = self._reports.ask(asked.request, session, self._now)
        if command is None:
            self._refuse(asked.request, Refusal(503, "busy", "Too many reports are under way."))
            return
        self._submit(command)

    def _find(self, request: RequestId, text: str) -> Session | None:
        """Our session; else the request is passed on or refused."""
        named = session_slot(text)
        if named is not None:
            session = self._sessions.get(named[0])
            if session is not None:
                return session
            if named[1] != self._slot and self._directory.is_alive(named[1]):
                self.counters.count("requests_passed_on")
                self._effects.append(PassOn(request, named[1]))
                return None
        self.counters.refused(404)
        self._effects.append(session_unknown(request))
        return None

    def _refuse(self, request: RequestId, refusal: Refusal) -> None:
        self.counters.refused(refusal.status)
        self._effects.append(problem(request, refusal.status, refusal.reason, refusal.detail))

    # --- the engine

    def _engine_said(self, event: Event) -> None:
        match event:
            case TransportConnected():
                session = self._sessions.of_thing(event.transport)
                if session is not None:
                    session.connected, session.srtp_profile = True, event.srtp_profile
            case TransportClosed():
                session = self._sessions.of_thing(event.transport)
                # None after our own CloseTransport, which has ended the session already.
                if session is not None:
                    self._end(session, event.cause)
            case TransportStalled():
                session = self._sessions.of_thing(event.transport)
                if session is not None and session.stalled is None:
                    session.stalled = event.cause
                    self.counters.failed(event.cause)
            case PublicationStarted():
                session = self._sessions.of_thing(event.publication)
                if session is not None:
                    session.stalled = None
            case PublicationEnded():
                self._publication_ended(event.publication)
            case TransportReport():
                session = self._reports.take(event.request)
                if session is not None:
                    self._effects.append(json_reply(event.request, session_view(session, event)))
            case CommandFailed():
                self._command_failed(event)

    def _publication_ended(self, publication: PublicationId) -> None:
        session = self._sessions.of_thing(publication)
        if session is None:
            return
        ended = self._sessions.remove_publication(session, publication)
        self._submit(Unpublish(publication))
        self._numbers.release_logs(ended.logs)
        self._announce(PublicationGone(session.room, publication))

    def _command_failed(self, event: CommandFailed) -> None:
        session = self._sessions.of_thing(event.id)
        self.counters.count("commands_refused")
        self._effects.append(EngineRefused(event.command, None if session is None else session.id, event.reason))
        if session is not None and event.command in OPENING_COMMANDS:
            self._close(session, ENGINE_REFUSED)

    # --- sessions

    def _close(self, session: Session, cause: str) -> None:
        """At our own wish."""
        self._submit(CloseTransport(session.transport))
        self._end(session, cause)

    def _end(self, session: Session, cause: str) -> None:
        """The transport is gone, or will be before any later command: what the session had is free."""
        for publication in session.publications.values():
            self._numbers.release_logs(publication.logs)
            self._announce(PublicationGone(session.room, publication.publication))
        self._numbers.release_ssrcs(session.ssrcs)
        self._announce(ParticipantGone(session.room, session.id))
        self._sessions.remove(session, cause, self._now)
        self.counters.ended(session.protocol)
        if session.stalled is None:
            self.counters.failed(cause)
        self._effects.append(SessionEnded(session.id, session.protocol, session.room, session.participant, cause))
        tombstone = self._sessions.tombstone(session.id)
        for request in self._reports.forget(session):
            if tombstone is not None:
                self._effects.append(json_reply(request, tombstone_view(tombstone)))

    def _close_room(self, room: RoomName) -> None:
        for session in self._sessions.in_room(room):
            self._close(session, "room_deleted")

    def _drain(self) -> None:
        self._draining = True
        for session in self._sessions.all():
            self._close(session, "stopping")

    def _close_replaced(self, newer: ParticipantHere) -> None:
        """A participant that publishes again: the newer session stands, as with LiveKit."""
        for session in self._sessions.in_room(newer.room):
            if session.protocol is not Protocol.WHIP or session.participant != newer.participant:
                continue
            if is_newer(newer, ParticipantHere(session.room, session.participant, session.id, True, session.opened_at)):
                self._close(session, "replaced")

    # --- facts

    def _watched(self, room: RoomName, watches: ParticipantId | None) -> tuple[PublicationHere, ...]:
        return publications_for(self._directory.room(room), watches)

    def _feed(self, room: RoomName, viewers: Sequence[Session]) -> None:
        """Attaches and detaches what has changed for these viewers."""
        watched: dict[ParticipantId | None, tuple[PublicationHere, ...]] = {}
        commands: list[Command] = []
        for viewer in viewers:
            if viewer.watches not in watched:
                watched[viewer.watches] = self._watched(room, viewer.watches)
            commands += feed(viewer, watched[viewer.watches])
        self._submit(*commands)

    def _announce(self, fact: Fact) -> None:
        self._sequence += 1
        self._effects.append(Announce(Envelope(self._slot, self._incarnation, self._sequence, fact)))
        self._take(self._slot, self._directory.apply_own(fact))

    def _take(self, slot: Slot, change: Change) -> None:
        self._touched |= change.rooms
        if change.ask is not None:
            self.counters.count("snapshots_asked")
            self._effects.append(AskSnapshot(slot, change.ask))
        for publisher in change.publishers:
            self._close_replaced(publisher)

    def _ticked(self) -> None:
        self._sessions.handle_tick(self._now)
        for request in self._reports.handle_tick(self._now):
            self._refuse(request, Refusal(504, "no-report", "The engine did not report in time."))
        for slot, change in self._directory.handle_tick(self._now):
            self._take(slot, change)
        self._announce(
            Load(
                len(self._sessions),
                self._sessions.publications,
                self._sessions.subscriptions,
                tuple(sorted(self.counters.values.items())),
            )
        )

    def _submit(self, *commands: Command) -> None:
        if commands:
            self._effects.append(Submit(commands))
