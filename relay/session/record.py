"""What control saves of a session with the engine, so that the worker's successor can go on with it. Owns the record's
shape and its two directions; must never decide what becomes of a session. Read `relay/engine_events.py` next, which
does.

    [RECORD_VERSION, what changes: etag, credentials, what is paused, codecs in use, what feeds each stream;
     as bytes: what never does]

The unchanging part is packed and compressed once, since a publisher's coming changes the records of all its viewers.
What a later release wrote there and this one does not know goes on with it, as these bytes. In the changing part it is
lost with the first change, because that change was made without regard to it.
"""

import zlib
from dataclasses import dataclass, replace
from functools import lru_cache

from millrace.relay.contract import codec
from millrace.relay.contract.commands import Codec, Extension, MediaKind
from millrace.relay.contract.events import TransportAdopted
from millrace.relay.contract.facts import PublicationHere, Sending
from millrace.relay.contract.ids import ParticipantId, PublicationId, RoomName, SessionId, SubscriptionId, TransportId
from millrace.relay.contract.protocol import Protocol
from millrace.relay.negotiation.answering import Receiver
from millrace.relay.session.sessions import Receiving, Session

_MAX_FIXED_BYTES = 1 << 20
"""Far more than any session's fixed part. A record that unpacks to more is refused."""


@dataclass(frozen=True, slots=True)
class RecordedFormats:
    """What was negotiated for an m-line; most viewers with the same browser have the same."""

    codecs: tuple[tuple[Codec, str], ...]
    extensions: tuple[Extension, ...]


@dataclass(frozen=True, slots=True)
class RecordedStream:
    """One m-line of a viewer, with the stream that it receives."""

    subscription: SubscriptionId
    kind: MediaKind
    mid: str
    position: int
    ssrc: int
    rtx_ssrc: int | None
    formats: bytes
    """A RecordedFormats, packed, so that a successor unpacks each once."""


@dataclass(frozen=True, slots=True)
class FixedRecord:
    """The part of a session that never changes after the answer."""

    session: SessionId
    protocol: Protocol
    room: RoomName
    participant: ParticipantId
    transport: TransportId
    opened_at: float
    mids: tuple[str, ...]
    watches: ParticipantId | None
    publications: tuple[PublicationHere, ...]
    streams: tuple[RecordedStream, ...]
    ssrcs: tuple[int, ...]
    needs_token: bool = True


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """The whole record."""

    etag: str
    remote_ufrag: str
    remote_pwd: str
    paused: tuple[PublicationId, ...]
    fed_from: tuple[PublicationId | None, ...]
    """The publication that feeds each of the streams, in their order; None for a stream that is not fed."""
    fixed: bytes
    """A FixedRecord, packed and compressed."""
    restarted_with: tuple[str, str] | None = None
    sending: Sending = Sending.SENDS
    in_use: tuple[tuple[PublicationId, int], ...] = ()
    """The payload type of the codec in use, for each publication that has a choice and has begun to send."""


def pack_session(session: Session) -> bytes:
    """The session as it stands now."""
    if not session.packed_fixed:
        session.packed_fixed = zlib.compress(codec.pack_record_part(_FIXED, _fixed(session)), 1)
    whole = SessionRecord(
        session.etag,
        session.remote_ufrag,
        session.remote_pwd,
        tuple(sorted(session.paused)),
        tuple(receiving.publication for receiving in session.receiving),
        session.packed_fixed,
        session.restarted_with,
    )
    in_use = tuple((one.publication, one.in_use) for one in session.publications.values() if one.in_use is not None)
    return codec.pack_record_part(_WHOLE, replace(whole, sending=session.sending, in_use=in_use))


def unpack_session(record: bytes, skip: codec.Skip = codec.ignore) -> Session:
    """The session as it stood then; whether it is connected is not in it. `skip` is told of each part that a later
    release has and this one does not. Raises `codec.Unreadable`.
    """
    whole: SessionRecord = codec.unpack_record_part(_WHOLE, record, skip)
    fixed: FixedRecord = codec.unpack_record_part(_FIXED, _decompressed(whole.fixed), skip)
    publications = {publication.publication: publication for publication in fixed.publications}
    for publication, payload_type in whole.in_use:
        if publication in publications:
            publications[publication] = publications[publication].with_codec(payload_type)
    if len(whole.fed_from) != len(fixed.streams) or not publications.keys() >= set(whole.paused):
        raise codec.Unreadable("the record's two parts do not belong together")
    return Session(
        id=fixed.session,
        protocol=fixed.protocol,
        room=fixed.room,
        participant=fixed.participant,
        transport=fixed.transport,
        opened_at=fixed.opened_at,
        etag=whole.etag,
        remote_ufrag=whole.remote_ufrag,
        remote_pwd=whole.remote_pwd,
        mids=fixed.mids,
        restarted_with=whole.restarted_with,
        sending=whole.sending,
        watches=fixed.watches,
        needs_token=fixed.needs_token,
        publications=publications,
        paused=set(whole.paused),
        receiving=[
            Receiving(stream.subscription, _receiver(stream, skip), publication)
            for stream, publication in zip(fixed.streams, whole.fed_from, strict=True)
        ],
        ssrcs=fixed.ssrcs,
        adopted=True,
        packed_fixed=whole.fixed,
    )


def rebuild(event: TransportAdopted, skip: codec.Skip) -> Session | None:
    """The session of a transport that the engine adopted; None when its record does not hold, or does not say what the
    engine has. `skip` as in `unpack_session`.
    """
    try:
        session = unpack_session(event.record, skip)
    except codec.Unreadable:
        return None
    has = (event.transport, set(event.publications), set(event.subscriptions))
    said = (session.transport, set(session.publications), {one.subscription for one in session.receiving})
    session.connected = event.connected
    return session if has == said else None


def _fixed(session: Session) -> FixedRecord:
    return FixedRecord(
        session=session.id,
        protocol=session.protocol,
        room=session.room,
        participant=session.participant,
        transport=session.transport,
        opened_at=session.opened_at,
        mids=session.mids,
        watches=session.watches,
        publications=tuple(session.publications.values()),
        streams=tuple(_stream(receiving) for receiving in session.receiving),
        needs_token=session.needs_token,
        ssrcs=session.ssrcs,
    )


def _stream(receiving: Receiving) -> RecordedStream:
    one = receiving.receiver
    formats = codec.pack_record_part(_FORMATS, RecordedFormats(one.codecs, one.extensions))
    return RecordedStream(receiving.subscription, one.kind, one.mid, one.position, one.ssrc, one.rtx_ssrc, formats)


def _receiver(stream: RecordedStream, skip: codec.Skip) -> Receiver:
    formats, skipped = _formats(stream.formats)
    for reason in skipped:
        skip(reason)
    return Receiver(
        stream.kind, stream.mid, stream.position, stream.ssrc, stream.rtx_ssrc, formats.codecs, formats.extensions
    )


@lru_cache(maxsize=256)
def _formats(packed: bytes) -> tuple[RecordedFormats, list[codec.Unreadable]]:
    skipped: list[codec.Unreadable] = []
    formats: RecordedFormats = codec.unpack_record_part(_FORMATS, packed, skipped.append)
    return formats, skipped


def _decompressed(packed: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(packed, _MAX_FIXED_BYTES)
    except zlib.error as error:
        raise codec.Unreadable(str(error)) from None


_FORMATS = codec.RecordPart(RecordedFormats)
_FIXED = codec.RecordPart(FixedRecord)
_WHOLE = codec.RecordPart(SessionRecord)
