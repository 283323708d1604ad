"""One value of every message that crosses a process or a language, and the files that hold its bytes.

`python tests/contract/messages.py` writes the files that are missing; a file that is there is the contract and is never
overwritten: who changes a message deletes its file, and looks at the difference.
"""

from pathlib import Path

from millrace.relay.contract import codec
from millrace.relay.contract.commands import (
    Attach,
    CloseTransport,
    Codec,
    CodecName,
    Command,
    Detach,
    DtlsRole,
    Encoding,
    Extension,
    ExtensionKind,
    Format,
    MediaKind,
    MoveTransport,
    OpenTransport,
    Publish,
    ReportTransport,
    RestartIce,
    SaveRecord,
    SetWish,
    Subscribe,
    TrackCodec,
    Unpublish,
    Unsubscribe,
)
from millrace.relay.contract.effects import Reply
from millrace.relay.contract.engine_config import EngineConfig, pack_engine_config
from millrace.relay.contract.events import (
    AdoptionDone,
    Cause,
    CodecInUse,
    CommandFailed,
    Event,
    MoveDone,
    Outcome,
    PublicationEnded,
    PublicationReport,
    PublicationStarted,
    PublisherHeard,
    PublisherSilent,
    SubscriptionReport,
    TransportAdopted,
    TransportClosed,
    TransportConnected,
    TransportReport,
    TransportStalled,
)
from millrace.relay.contract.facts import (
    Envelope,
    Fact,
    Load,
    ParticipantGone,
    ParticipantHere,
    PublicationGone,
    PublicationHere,
    PublishedFormat,
    Sending,
    Snapshot,
)
from millrace.relay.contract.ids import (
    Incarnation,
    ParticipantId,
    PublicationId,
    RequestId,
    RoomName,
    SessionId,
    Slot,
    SubscriptionId,
    TransportId,
)
from millrace.relay.contract.inputs import (
    Deleted,
    EndsHeard,
    MoveAsked,
    Offered,
    Patched,
    RoomClosedElsewhere,
    SessionAsked,
)
from millrace.relay.contract.protocol import Protocol
from millrace.relay.contract.rpc import Answer, CallUnknown, EndsAsked, PassedOnAgain, Rpc, SnapshotAsked
from millrace.relay.contract.tombstone import Tombstone

GOLDEN = Path(__file__).parent / "golden"

TRANSPORT = TransportId(2**63 - 1)
PUBLICATION = PublicationId(0x1122334455667788)
SUBSCRIPTION = SubscriptionId(1)
VP8 = Codec(CodecName.VP8, 96, 97, 90_000)
H264 = Codec(CodecName.H264, 102, 103, 90_000)
OPUS = Codec(CodecName.OPUS, 111, None, 48_000)
ALL_EXTENSIONS = tuple(Extension(number, kind) for number, kind in enumerate(ExtensionKind, start=1))

COMMANDS: dict[str, Command] = {
    "open_transport": OpenTransport(
        transport=TRANSPORT,
        local_ufrag="3fAbCd0189",
        local_pwd="A" * 24,
        remote_ufrag="r+/f",
        remote_pwd="p" * 256,
        dtls_role=DtlsRole.SERVER,
        fingerprint_hash="sha-256",
        fingerprints=(bytes(range(32)), bytes(32)),
        expects_media=True,
    ),
    "open_transport_to_a_passive_viewer": OpenTransport(
        transport=TransportId(1),
        local_ufrag="00AbCd0189",
        local_pwd="A" * 24,
        remote_ufrag="abcd",
        remote_pwd="p" * 22,
        dtls_role=DtlsRole.CLIENT,
        fingerprint_hash="sha-512",
        fingerprints=(bytes(64),),
        expects_media=False,
    ),
    "restart_ice": RestartIce(TRANSPORT, "00newufrag", "B" * 24, "wxyz", "q" * 22),
    "close_transport": CloseTransport(TRANSPORT),
    "publish": Publish(
        publication=PUBLICATION,
        transport=TRANSPORT,
        kind=MediaKind.VIDEO,
        mid="1",
        codec=VP8,
        encodings=(Encoding("q", None, None, 1024), Encoding("h", None, None, 1025), Encoding("f", None, None, 1026)),
        extensions=ALL_EXTENSIONS,
        nack=True,
        pli=True,
        fir=False,
        codecs=(TrackCodec(VP8, True, True, False), TrackCodec(H264, True, False, True)),
        parameter_sets=bytes.fromhex("0005674200 1f8c 0004 68ce3c80"),
    ),
    "publish_without_rids": Publish(
        publication=PUBLICATION,
        transport=TRANSPORT,
        kind=MediaKind.AUDIO,
        mid="",
        codec=OPUS,
        encodings=(Encoding(None, 2**32 - 1, 5, 65_535 * 64),),
        extensions=(),
        nack=False,
        pli=False,
        fir=True,
        codecs=(),
        parameter_sets=b"",
    ),
    "unpublish": Unpublish(PUBLICATION),
    "subscribe": Subscribe(
        SUBSCRIPTION, TRANSPORT, MediaKind.VIDEO, "video", 0xDEADBEEF, 0xCAFEF00D, "cname", ALL_EXTENSIONS
    ),
    "subscribe_without_repair": Subscribe(SUBSCRIPTION, TRANSPORT, MediaKind.AUDIO, "0", 1, None, "cname", ()),
    "attach": Attach(SUBSCRIPTION, PUBLICATION, (1, 2, 3), VP8, ALL_EXTENSIONS, (Format(96, VP8), Format(102, H264))),
    **{
        f"attach_{name}": Attach(SUBSCRIPTION, PUBLICATION, (0,), Codec(name, 127, None, 90_000), (), ())
        for name in CodecName
    },
    "detach": Detach(SUBSCRIPTION),
    "unsubscribe": Unsubscribe(SUBSCRIPTION),
    "report_transport": ReportTransport(TRANSPORT, RequestId(7)),
    "save_record": SaveRecord(TRANSPORT, bytes(range(256)) * 2),
    "save_record_of_nothing": SaveRecord(TRANSPORT, b""),
    "set_wish": SetWish(SUBSCRIPTION, 360),
    "set_wish_for_the_best": SetWish(SUBSCRIPTION, None),
    "move_transport": MoveTransport(TRANSPORT, Slot(63)),
}

EVENTS: dict[str, Event] = {
    "transport_connected": TransportConnected(TRANSPORT, "AEAD_AES_128_GCM", "DTLSv1.2", 12_345),
    **{f"transport_closed_{cause}": TransportClosed(TRANSPORT, cause) for cause in Cause},
    "transport_stalled": TransportStalled(TRANSPORT, Cause.NO_SRTP),
    "codec_in_use": CodecInUse(PUBLICATION, 102),
    "publication_started": PublicationStarted(PUBLICATION),
    "publication_ended": PublicationEnded(PUBLICATION),
    "publisher_silent": PublisherSilent(TRANSPORT),
    "publisher_heard": PublisherHeard(TRANSPORT),
    "transport_report": TransportReport(
        transport=TRANSPORT,
        request=RequestId(7),
        state="connected",
        remote_address="192.0.2.1:50000",
        srtp_profile="AES128_CM_SHA1_80",
        packets_received=2**40,
        bytes_received=2**50,
        packets_sent=3,
        bytes_sent=4,
        drops=(("srtp_replay", 1), ("rtp_duplicate", 300)),
        round_trip_ms=12.5,
        publications=(PublicationReport(PUBLICATION, 1, 2, 3, 4, 0.125, 5, 6, 7),),
        subscriptions=(
            SubscriptionReport(SUBSCRIPTION, PUBLICATION, 1, 2, 3, 4, 0.25, 5),
            SubscriptionReport(SUBSCRIPTION, None, 0, 0, 0, 0, 0.0, 0),
        ),
        remote_protocol="tcp",
    ),
    "transport_report_of_a_new_transport": TransportReport(
        TRANSPORT, RequestId(8), "new", None, None, 0, 0, 0, 0, (), None, (), ()
    ),
    "command_failed": CommandFailed("Publish", PUBLICATION, "no such transport"),
    "transport_adopted": TransportAdopted(
        TRANSPORT, bytes(range(256)), (PUBLICATION, PublicationId(2)), (SUBSCRIPTION,), connected=True
    ),
    "transport_adopted_without_a_record": TransportAdopted(TRANSPORT, b"", (), (), connected=False),
    "adoption_done": AdoptionDone(2_000, 3),
    "adoption_done_at_a_first_start": AdoptionDone(0, 0),
    **{f"move_done_{outcome}": MoveDone(TRANSPORT, Slot(2), outcome) for outcome in Outcome},
}

_ROOM = RoomName("hall")
_SESSION = SessionId("03.AAAAAAAAAAAAAAAAAAAAAA")
_WHO = ParticipantId("Zoë")
FACTS: dict[str, Fact] = {
    "participant_here": ParticipantHere(_ROOM, _WHO, _SESSION, True, 1_790_000_000.25),
    "participant_here_silent": ParticipantHere(_ROOM, _WHO, _SESSION, True, 1_790_000_000.25, Sending.SILENT),
    "participant_gone": ParticipantGone(_ROOM, _SESSION),
    "publication_here": PublicationHere(
        room=_ROOM,
        session=_SESSION,
        participant=_WHO,
        publication=PUBLICATION,
        kind=MediaKind.VIDEO,
        position=1,
        codec=CodecName.H264,
        clock_rate=90_000,
        format_parameters="profile-level-id=42e01f;packetization-mode=1",
        logs=(3072, 3073),
        extensions=ALL_EXTENSIONS,
        published_at=1_790_000_000.5,
        formats=(
            PublishedFormat(96, CodecName.VP8, 90_000, ""),
            PublishedFormat(102, CodecName.H264, 90_000, "profile-level-id=42e01f;packetization-mode=1"),
        ),
        in_use=102,
    ),
    "publication_gone": PublicationGone(_ROOM, PUBLICATION),
    "load": Load(1, 2, 3, (('millrace_sessions_failed_total{cause="no_stun"}', 4),)),
}
ENVELOPES = {name: Envelope(Slot(3), Incarnation(2), 70_000, fact) for name, fact in FACTS.items()}

_ENDS = EndsHeard(
    (Tombstone(_SESSION, Protocol.WHIP, _ROOM, _WHO, 1_790_000_000.25, 1_790_000_060.5, "replaced", 5_300.75),)
)
CALLS: dict[str, Rpc] = {
    "snapshot_asked": SnapshotAsked(),
    "ends_asked": EndsAsked(),
    "ends_told": _ENDS,
    "room_closed": RoomClosedElsewhere("hall"),
    "patched": Patched(RequestId(1), _SESSION, "token", '"etag"', "a=ice-ufrag:abcd\r\n", "198.51.100.7"),
    "deleted": Deleted(RequestId(2), _SESSION, None, by_admin=True),
    "session_asked": SessionAsked(RequestId(3), _SESSION),
    "move_asked": MoveAsked(RequestId(4), _SESSION, 2),
    "offered": Offered(RequestId(5), Protocol.WHEP, "hall", "token", "v=0\r\n", _WHO),
    "passed_on_again": PassedOnAgain(Deleted(RequestId(6), _SESSION, "token")),
}
ANSWERS: dict[str, Answer] = {
    "snapshot": Snapshot(Slot(3), Incarnation(2), 70_000, tuple(FACTS.values())),
    "ends": _ENDS,
    "call_unknown": CallUnknown(),
    "reply": Reply(RequestId(1), 200, (("ETag", '"a"'), ("Content-Type", "text/plain")), bytes(range(256))),
}

ENGINE_CONFIG = EngineConfig(
    slot=3,
    slots=4,
    adopts=True,
    certificate_pem="-----BEGIN CERTIFICATE-----\n",
    private_key_pem="-----BEGIN PRIVATE KEY-----\n",
    max_transports=2_000,
    max_handshakes=256,
    max_addresses=8,
    max_streams=32,
    ice_timeout_ms=15_000,
    handshake_timeout_ms=10_000,
    consent_timeout_ms=30_000,
    media_timeout_ms=10_000,
    repair_delay_ms=200,
    advertised=("203.0.113.5:7882", "[2001:db8::5]:7882"),
)


def packed() -> dict[str, bytes]:
    """The bytes of each message, by the file that holds them."""
    return {
        **{f"commands/{name}": codec.pack_commands([command]) for name, command in COMMANDS.items()},
        **{f"events/{name}": codec.pack_events([event]) for name, event in EVENTS.items()},
        **{f"facts/{name}": codec.pack_envelope(envelope) for name, envelope in ENVELOPES.items()},
        **{f"calls/{name}": codec.pack_rpc(call) for name, call in CALLS.items()},
        **{f"answers/{name}": codec.pack_answer(answer) for name, answer in ANSWERS.items()},
        "engine_config": pack_engine_config(ENGINE_CONFIG),
    }


def read(name: str) -> bytes:
    """What a golden file holds: hex digits, with line breaks."""
    return bytes.fromhex((GOLDEN / f"{name}.hex").read_text())


def write_missing() -> None:
    """Adds the files of new messages."""
    for name, content in packed().items():
        path = GOLDEN / f"{name}.hex"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            digits = content.hex()
            lines = [digits[start : start + 96] for start in range(0, len(digits), 96)]
            path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    write_missing()
