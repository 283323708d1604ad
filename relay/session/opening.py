"""Turns an admitted offer into a session: its numbers, the engine's commands, its facts and the answer. Owns that
order of things; must never decide who may come in, which is `relay/access/admission.py`'s. Read
`relay/negotiation/answering.py` for the answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from millrace.relay.contract.boot import CandidateAddress
from millrace.relay.contract.commands import (
    CodecName,
    Command,
    Encoding,
    MediaKind,
    OpenTransport,
    Publish,
    SetWish,
    Subscribe,
)
from millrace.relay.contract.facts import PublicationHere, PublishedFormat
from millrace.relay.contract.ids import ParticipantId, RoomName
from millrace.relay.contract.protocol import Protocol
from millrace.relay.contract.refusal import Refusal
from millrace.relay.negotiation.answering import OfferedTrack, answer_publisher, answer_viewer, host_candidates
from millrace.relay.negotiation.parameter_sets import parameter_sets
from millrace.relay.sdp.answer import Candidate, Local
from millrace.relay.sdp.offer import Offer, Remote
from millrace.relay.session.numbers import Numbers
from millrace.relay.session.sessions import Receiving, Session


@dataclass(frozen=True, slots=True)
class Guest:
    """An admitted client: who it is, what it may do in which room, and since when."""

    protocol: Protocol
    room: RoomName
    participant: ParticipantId
    watches: ParticipantId | None
    joined_at: float
    """Unix time, seconds."""
    sources: tuple[str, ...] = ()
    """What the client may publish, as in `Grant.sources`."""
    needs_token: bool = False
    """As in `Session.needs_token`."""
    reached_at: str | None = None
    """As in `Offered`."""
    source: str = ""
    """As in `Session`."""
    max_height: int | None = None
    """How high a viewer shows pictures, in pixels; None when it did not say."""


@dataclass(frozen=True, slots=True)
class OpenedSession:
    """A new session, not yet in any table."""

    session: Session
    commands: tuple[Command, ...]
    answer: str
    lacking: tuple[tuple[MediaKind, CodecName], ...] = ()
    """As in ViewerAnswer."""


class Candidates:
    """Our addresses as candidates, the likeliest first (RFC 5245 section 4.1.4, which RFC 8839 keeps): some clients try
    no other. A client reaches the address to which it sent its request; of the others the master knows the order.
    """

    def __init__(self, addresses: Sequence[CandidateAddress]) -> None:
        self._otherwise = host_candidates(addresses)
        self._reached_at = {each.bound: host_candidates(_first_of(addresses, each.bound)) for each in addresses}

    def at(self, reached_at: str | None) -> tuple[Candidate, ...]:
        """Returns them for a client that has reached us at this address; None when it is not known."""
        return self._reached_at.get(reached_at or "", self._otherwise)


@dataclass(frozen=True, slots=True)
class Opener:
    """Opens sessions, and has what all answers of one worker share."""

    numbers: Numbers
    fingerprint: str
    candidates: Candidates
    max_publications: int

    def publisher(self, guest: Guest, offer: Offer, publications_here: int) -> OpenedSession | Refusal:
        """Opens a publisher's session (WHIP). `publications_here` counts those of this worker, against its limit."""
        local = self.local(reached_at=guest.reached_at)
        answer = answer_publisher(offer, local)
        if isinstance(answer, Refusal):
            return answer
        logs_wanted = sum(len(track.encodings) for track in answer.tracks)
        if publications_here + len(answer.tracks) > self.max_publications or not self.numbers.has_logs(logs_wanted):
            return Refusal(503, "publications-full", "This worker takes no further publication now.")
        session = self._session(guest, answer.remote, answer.mids)
        commands: list[Command] = [_open_transport(session, local, answer.remote, expects_media=True)]
        for track in answer.tracks:
            publish = self._publish(session, track)
            commands.append(publish)
            formats = tuple(
                PublishedFormat(known.codec.payload_type, known.codec.name, known.codec.clock_rate, parameters)
                for known, parameters in zip(track.codecs, track.format_parameters, strict=True)
            )
            session.publications[publish.publication] = PublicationHere(
                room=session.room,
                session=session.id,
                participant=session.participant,
                publication=publish.publication,
                kind=track.kind,
                position=track.position,
                codec=formats[0].codec,
                clock_rate=formats[0].clock_rate,
                format_parameters=formats[0].format_parameters,
                logs=tuple(encoding.log for encoding in publish.encodings),
                extensions=track.extensions,
                published_at=guest.joined_at,
                formats=formats if len(formats) > 1 else (),
            )
        return OpenedSession(session, tuple(commands), answer.sdp)

    def viewer(self, guest: Guest, offer: Offer, publications: tuple[PublicationHere, ...]) -> OpenedSession | Refusal:
        """Opens a viewer's session (WHEP). Its streams are not fed yet: the caller does that next, as it does when a
        publication comes later.
        """
        local = self.local(reached_at=guest.reached_at)
        cname = self.numbers.cname()
        streams = [(self.numbers.ssrc(), self.numbers.ssrc()) for _ in offer.media]
        ssrcs = tuple(ssrc for pair in streams for ssrc in pair)
        answer = answer_viewer(offer, local, streams, cname, publications)
        if isinstance(answer, Refusal):
            self.numbers.release_ssrcs(ssrcs)
            return answer
        session = self._session(guest, answer.remote, answer.mids)
        session.ssrcs = ssrcs
        commands: list[Command] = [_open_transport(session, local, answer.remote, expects_media=False)]
        for receiver in answer.receivers:
            subscription = self.numbers.subscription()
            session.receiving.append(Receiving(subscription, receiver))
            commands.append(
                Subscribe(
                    subscription=subscription,
                    transport=session.transport,
                    kind=receiver.kind,
                    mid=receiver.mid,
                    ssrc=receiver.ssrc,
                    rtx_ssrc=receiver.rtx_ssrc,
                    cname=cname,
                    extensions=receiver.extensions,
                )
            )
            if receiver.kind is MediaKind.VIDEO and guest.max_height is not None:
                commands.append(SetWish(subscription, guest.max_height))
        return OpenedSession(session, tuple(commands), answer.sdp, answer.lacking)

    def local(self, credentials: tuple[str, str] | None = None, reached_at: str | None = None) -> Local:
        """Our side of an answer or a restart; with fresh credentials unless `credentials` (ufrag, pwd) are given."""
        ufrag, pwd = credentials or (self.numbers.ice_ufrag(), self.numbers.ice_pwd())
        return Local(
            ufrag=ufrag,
            pwd=pwd,
            fingerprint=self.fingerprint,
            candidates=self.candidates.at(reached_at),
            session_id=self.numbers.sdp_session(),
        )

    def _session(self, guest: Guest, remote: Remote, mids: tuple[str, ...]) -> Session:
        return Session(
            id=self.numbers.session(),
            protocol=guest.protocol,
            room=guest.room,
            participant=guest.participant,
            transport=self.numbers.transport(),
            opened_at=guest.joined_at,
            etag=self.numbers.etag(),
            remote_ufrag=remote.ufrag,
            remote_pwd=remote.pwd,
            mids=mids,
            watches=guest.watches,
            needs_token=guest.needs_token,
            source=guest.source,
        )

    def _publish(self, session: Session, track: OfferedTrack) -> Publish:
        first = track.codecs[0]
        return Publish(
            publication=self.numbers.publication(),
            transport=session.transport,
            kind=track.kind,
            mid=track.mid,
            codec=first.codec,
            encodings=tuple(
                Encoding(offered.rid, offered.ssrc, offered.rtx_ssrc, self.numbers.log()) for offered in track.encodings
            ),
            extensions=track.extensions,
            nack=first.nack,
            pli=first.pli,
            fir=first.fir,
            codecs=track.codecs if len(track.codecs) > 1 else (),
            parameter_sets=parameter_sets(
                parameters
                for one, parameters in zip(track.codecs, track.format_parameters, strict=True)
                if one.codec.name is CodecName.H264
            ),
        )


def _open_transport(session: Session, local: Local, remote: Remote, expects_media: bool) -> OpenTransport:
    return OpenTransport(
        transport=session.transport,
        local_ufrag=local.ufrag,
        local_pwd=local.pwd,
        remote_ufrag=remote.ufrag,
        remote_pwd=remote.pwd,
        dtls_role=remote.role,
        fingerprint_hash=remote.fingerprint_hash,
        fingerprints=remote.fingerprints,
        expects_media=expects_media,
    )


def _first_of(addresses: Sequence[CandidateAddress], bound: str) -> list[CandidateAddress]:
    """Returns the addresses, UDP before TCP; of each the first that leads to `bound` comes first."""
    ordered: list[CandidateAddress] = []
    for protocol in ("udp", "tcp"):
        rest = [each for each in addresses if each.protocol == protocol]
        first = next((each for each in rest if each.bound == bound), None)
        ordered += [first, *(each for each in rest if each is not first)] if first else rest
    return ordered
