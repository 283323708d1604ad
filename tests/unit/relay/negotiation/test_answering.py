import re
from dataclasses import replace

import aiortc
import pytest
from aiortc.sdp import SessionDescription

from millrace.relay.contract.boot import CandidateAddress
from millrace.relay.contract.commands import CodecName, DtlsRole, ExtensionKind, Format, MediaKind
from millrace.relay.contract.facts import PublicationHere, PublishedFormat
from millrace.relay.contract.ids import ParticipantId, PublicationId, RoomName, SessionId
from millrace.relay.negotiation.answering import (
    OfferedEncoding,
    OfferedTrack,
    PublisherAnswer,
    Receiver,
    Refusal,
    ViewerAnswer,
    answer_publisher,
    answer_viewer,
    codec_for,
    formats_for,
    host_candidates,
)
from millrace.relay.sdp.offer import Offer, parse_offer
from tests.unit.relay.sdp.test_offer import mutated
from tests.unit.sdp_samples import (
    AUDIO,
    AUDIO_CODECS,
    LIMITS,
    LOCAL,
    NAMES,
    PUBLISHERS,
    SESSION,
    TRANSPORT,
    VIDEO,
    VIDEO_CODECS,
    both,
    real,
    text,
    video_only,
)

STREAMS = [(1000 + 2 * index, 1001 + 2 * index) for index in range(64)]
BASELINE = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f"
CONSTRAINED = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"
HIGH = "packetization-mode=1;profile-level-id=640028"


def offered(body: str) -> Offer:
    offer = parse_offer(body, LIMITS)
    assert isinstance(offer, Offer), offer
    return offer


def publish(body: str) -> PublisherAnswer:
    answer = answer_publisher(offered(body), LOCAL)
    assert isinstance(answer, PublisherAnswer), answer
    return answer


def view(body: str, *publications: PublicationHere) -> ViewerAnswer:
    answer = answer_viewer(offered(body), LOCAL, STREAMS, "cname1", publications)
    assert isinstance(answer, ViewerAnswer), answer
    return answer


def viewing(body: str) -> str:
    return body.replace("a=sendonly", "a=recvonly")


def published(codec: CodecName, parameters: str = "", position: int = 0) -> PublicationHere:
    return PublicationHere(
        room=RoomName("room"),
        session=SessionId("00.x"),
        participant=ParticipantId("alice"),
        publication=PublicationId(1),
        kind=MediaKind.AUDIO if codec is CodecName.OPUS else MediaKind.VIDEO,
        position=position,
        codec=codec,
        clock_rate=48000 if codec is CodecName.OPUS else 90000,
        format_parameters=parameters,
        logs=(0,),
        extensions=(),
        published_at=0.0,
    )


def sections(sdp: str) -> list[list[str]]:
    """Lines above all m-lines, then those of each."""
    parts: list[list[str]] = [[]]
    for line in sdp.splitlines():
        if line.startswith("m="):
            parts.append([])
        parts[-1].append(line)
    return parts


def video_codecs(*codecs: tuple[int, str, str]) -> str:
    lines = []
    for payload_type, name, parameters in codecs:
        lines.append(f"a=rtpmap:{payload_type} {name}/90000")
        if parameters:
            lines.append(f"a=fmtp:{payload_type} {parameters}")
    formats = " ".join(str(payload_type) for payload_type, _, _ in codecs)
    return video_only(formats=formats, codecs=tuple(lines))


# --- real clients


@pytest.mark.parametrize("name", PUBLISHERS)
def test_real_publishers_get_an_answer_that_reads_back(name: str) -> None:
    offer = offered(real(name))
    answer = publish(real(name))
    assert [track.kind.value for track in answer.tracks] == [media.token for media in offer.media]
    read = SessionDescription.parse(answer.sdp)
    assert [media.rtp.muxId for media in read.media] == [media.mid for media in offer.media]
    assert all(media.direction == "recvonly" for media in read.media)
    assert all(media.ice.iceLite for media in read.media)
    assert [len(media.ice_candidates) for media in read.media] == [2, 0]
    assert read.media[0].ice_candidates_complete
    assert all(media.rtcp_mux for media in read.media)
    assert read.group[0].items == list(answer.mids)
    for media, track in zip(read.media, answer.tracks, strict=True):
        codecs = [known.codec for known in track.codecs]
        expected = [(codec.payload_type, codec.rtx_payload_type) for codec in codecs]
        written = [number for pair in expected for number in pair if number is not None]
        assert [line.payloadType for line in media.rtp.codecs] == written


@pytest.mark.parametrize("name", NAMES)
def test_real_clients_get_a_viewers_answer_that_reads_back(name: str) -> None:
    body = re.sub("a=sendrecv|a=sendonly", "a=recvonly", real(name))
    answer = view(body)
    read = SessionDescription.parse(answer.sdp)
    for media, receiver in zip(read.media, answer.receivers, strict=True):
        assert media.direction == "sendonly"
        assert media.ssrc[0].ssrc == receiver.ssrc
        assert {line.cname for line in media.ssrc} == {"cname1"}
        assert (receiver.rtx_ssrc is not None) == bool(media.ssrc_group)
        assert [c.payloadType for c in media.rtp.codecs if c.name != "rtx"] == [
            codec.payload_type for codec, _ in receiver.codecs
        ]


EXPECTED = {
    "aiortc-1.16.0.pt97": (CodecName.VP8, 97, 98, 2290779259, 2546095948, (True, True, False)),
    "chromium156.pt102": (CodecName.H264, 102, None, 4161795356, None, (True, True, True)),
    "chromium156.pt45": (CodecName.AV1, 45, None, 1182949436, None, (True, True, True)),
    "chromium156.pt96": (CodecName.VP8, 96, None, 830920445, None, (True, True, True)),
    "ffmpeg-9.0.2-whip.pt106": (CodecName.H264, 106, 105, 3958014435, 3958014436, (True, False, False)),
    "firefox153.pt120": (CodecName.VP8, 120, None, 1122758794, None, (True, True, True)),
    "firefox153.pt121": (CodecName.VP9, 121, None, 443052298, None, (True, True, True)),
    "gstreamer-1.22-webrtcbin.pt96": (CodecName.VP8, 96, None, 2394559707, None, (False, True, True)),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_real_publishers_video_is_understood(name: str) -> None:
    (track,) = (track for track in publish(real(name)).tracks if track.kind is MediaKind.VIDEO)
    (encoding,) = track.encodings
    codec = track.codecs[0].codec
    feedback = (track.codecs[0].nack, track.codecs[0].pli, track.codecs[0].fir)
    found = (codec.name, codec.payload_type, codec.rtx_payload_type, encoding.ssrc, encoding.rtx_ssrc, feedback)
    assert found == EXPECTED[name]


def test_gstreamer_gets_its_names_and_letter_case_back() -> None:
    answer = publish(real("gstreamer-1.22-webrtcbin.pt96"))
    assert answer.mids == ("video0", "audio1")
    assert "a=group:BUNDLE video0 audio1\r\n" in answer.sdp
    assert "a=rtpmap:111 OPUS/48000/2\r\n" in answer.sdp
    assert "sprop" not in answer.sdp
    assert "transport-cc" not in answer.sdp, "offered as feedback, but without its extension"


def test_ffmpeg_gets_an_active_answer() -> None:
    answer = publish(real("ffmpeg-9.0.2-whip.pt106"))
    assert answer.remote.role is DtlsRole.CLIENT
    assert answer.sdp.count("a=setup:active\r\n") == 2


def test_other_clients_get_a_passive_answer() -> None:
    answer = publish(real("firefox153.pt120"))
    assert answer.remote.role is DtlsRole.SERVER
    assert answer.sdp.count("a=setup:passive\r\n") == 2


async def test_aiortc_takes_a_publishers_answer() -> None:
    client = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
    client.addTransceiver("audio", direction="sendonly")
    client.addTransceiver("video", direction="sendonly")
    try:
        await client.setLocalDescription(await client.createOffer())
        answer = publish(client.localDescription.sdp)
        await client.setRemoteDescription(aiortc.RTCSessionDescription(answer.sdp, "answer"))
        assert [transceiver.currentDirection for transceiver in client.getTransceivers()] == ["sendonly", "sendonly"]
    finally:
        await client.close()


async def test_aiortc_takes_a_viewers_answer() -> None:
    client = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
    client.addTransceiver("video", direction="recvonly")
    client.addTransceiver("audio", direction="recvonly")
    tracks = []
    client.on("track", tracks.append)
    try:
        await client.setLocalDescription(await client.createOffer())
        answer = view(client.localDescription.sdp, published(CodecName.H264, BASELINE))
        await client.setRemoteDescription(aiortc.RTCSessionDescription(answer.sdp, "answer"))
        assert [transceiver.currentDirection for transceiver in client.getTransceivers()] == ["recvonly", "recvonly"]
        assert [track.kind for track in tracks] == ["video", "audio"]
        assert answer.receivers[0].codecs[0][0].name is CodecName.H264
    finally:
        await client.close()


@pytest.mark.parametrize("name", ["chromium156.simulcast", "firefox153.simulcast"])
def test_browsers_simulcast_is_taken_by_rid(name: str) -> None:
    answer = publish(real(name))
    track = next(track for track in answer.tracks if track.kind is MediaKind.VIDEO)
    assert track.encodings == tuple(OfferedEncoding(rid, None, None) for rid in "qhf")
    assert track.codecs[0].codec.rtx_payload_type is not None
    taken = {extension.kind for extension in track.extensions}
    assert {ExtensionKind.MID, ExtensionKind.RID, ExtensionKind.REPAIRED_RID} <= taken
    assert "a=simulcast:recv q;h;f\r\n" in answer.sdp


def test_an_offer_of_obs_shape_is_taken() -> None:
    """libdatachannel: transport above all m-lines, a second group, mid and rid extensions, no rid lines, no rtx."""
    above = (*SESSION, "a=group:LS 0 1", "a=msid-semantic:WMS *", "a=ice-options:ice2,trickle", *TRANSPORT)
    audio = (AUDIO[0], AUDIO[1], "a=mid:0", "a=sendonly", "a=rtcp-mux", "a=ssrc:41 cname:obs", *AUDIO_CODECS)
    video = (
        "m=video 9 UDP/TLS/RTP/SAVPF 96",
        *("a=mid:1", "a=sendonly", "a=rtcp-mux", f"a=extmap:1 {MID}", f"a=extmap:2 {RID}", "a=ssrc:42 cname:obs"),
        *("a=rtpmap:96 H264/90000", "a=rtcp-fb:96 nack", "a=rtcp-fb:96 nack pli", "a=rtcp-fb:96 goog-remb"),
        "a=fmtp:96 profile-level-id=42e01f;packetization-mode=1;level-asymmetry-allowed=1",
    )
    answer = publish(text(above, audio, video))
    (track,) = (track for track in answer.tracks if track.kind is MediaKind.VIDEO)
    assert track.encodings == (OfferedEncoding(None, 42, None),)
    assert kinds(track.extensions) == [(1, ExtensionKind.MID)]
    assert (track.codecs[0].nack, track.codecs[0].pli, track.codecs[0].fir) == (True, True, False)


# --- the shape of answers


def test_the_transport_is_written_once_and_shared() -> None:
    head, audio, video = sections(publish(both()).sdp)
    assert head[:2] == ["v=0", "o=- 1234567890123456789 1 IN IP4 127.0.0.1"]
    assert "a=ice-lite" in head
    assert [line for line in audio if "candidate" in line] == [
        "a=candidate:1 1 udp 2130706431 127.0.0.1 7882 typ host",
        "a=candidate:2 1 udp 2130706175 ::1 7882 typ host",
        "a=end-of-candidates",
    ]
    assert not [line for line in video if "candidate" in line]
    for part in (audio, video):
        assert {"a=ice-ufrag:00abcdEFGH", f"a=ice-pwd:{'A' * 24}", "a=setup:passive", "a=rtcp-mux"} <= set(part)


def test_candidates_go_into_the_groups_first_m_line() -> None:
    _, audio, video = sections(publish(both().replace("BUNDLE 0 1", "BUNDLE 1 0")).sdp)
    assert "a=end-of-candidates" in video
    assert "a=end-of-candidates" not in audio


def test_only_what_was_offered_comes_back() -> None:
    plain = publish(both()).sdp
    assert "extmap-allow-mixed" not in plain
    assert "rtcp-rsize" not in plain
    richer = publish(both().replace("a=rtcp-mux", "a=rtcp-mux\r\na=rtcp-rsize\r\na=extmap-allow-mixed")).sdp
    assert richer.count("a=rtcp-rsize\r\n") == 2
    assert sections(richer)[0].count("a=extmap-allow-mixed") == 1


def test_who_takes_no_separate_rtcp_is_answered_likewise_in_that_m_line() -> None:
    offer = both().replace("a=rtcp-mux", "a=rtcp-mux\r\na=rtcp-mux-only", 1)
    _, audio, video = sections(publish(offer).sdp)
    assert audio.count("a=rtcp-mux") == audio.count("a=rtcp-mux-only") == video.count("a=rtcp-mux") == 1
    assert "a=rtcp-mux-only" not in video


def test_one_m_line_without_a_group_is_answered_without_a_group() -> None:
    answer = publish(video_only().replace("a=mid:1\r\n", ""))
    assert "group" not in answer.sdp
    assert "a=mid" not in answer.sdp
    assert answer.tracks[0].mid == ""


@pytest.mark.parametrize(
    "profile", ["RTP/AVP", "RTP/AVPF", "RTP/SAVP", "RTP/SAVPF", "UDP/TLS/RTP/SAVP", "TCP/TLS/RTP/SAVPF"]
)
def test_an_older_name_of_the_profile_comes_back_as_it_was(profile: str) -> None:
    _, audio, video = sections(publish(both().replace("UDP/TLS/RTP/SAVPF", profile)).sdp)
    assert (audio[0], video[0]) == (f"m=audio 7882 {profile} 111", f"m=video 7882 {profile} 96 97")


def test_m_lines_that_are_not_taken_are_rejected_in_place() -> None:
    channel = ("m=application 9 UDP/DTLS/SCTP webrtc-datachannel", "c=IN IP4 0.0.0.0", "a=mid:2", "a=sctp-port:5000")
    body = text((*SESSION[:-1], "a=group:BUNDLE 0 2 1"), AUDIO, AUDIO_CODECS, channel, VIDEO, VIDEO_CODECS)
    head, _, data, _ = sections(publish(body).sdp)
    assert data[0] == "m=application 0 UDP/DTLS/SCTP webrtc-datachannel"
    assert "a=mid:2" in data
    assert "a=group:BUNDLE 0 1" in head


def test_the_groups_first_m_line_stays_alive_without_media() -> None:
    answer = publish(both().replace("a=sendonly", "a=inactive", 1))
    head, audio, video = sections(answer.sdp)
    assert "a=group:BUNDLE 0 1" in head
    assert audio[0] == "m=audio 7882 UDP/TLS/RTP/SAVPF 111"
    assert {"a=inactive", "a=end-of-candidates"} <= set(audio)
    assert "a=recvonly" in video
    assert [track.kind for track in answer.tracks] == [MediaKind.VIDEO]


def test_a_data_channel_that_leads_the_group_stays_alive_and_carries_the_transport() -> None:
    channel = ("m=application 9 UDP/DTLS/SCTP webrtc-datachannel", "c=IN IP4 0.0.0.0", *TRANSPORT, "a=mid:2")
    body = text((*SESSION[:-1], "a=group:BUNDLE 2 1"), channel, VIDEO, VIDEO_CODECS)
    head, data, video = sections(publish(body).sdp)
    assert "a=group:BUNDLE 2 1" in head
    assert data[0] == "m=application 7882 UDP/DTLS/SCTP webrtc-datachannel"
    assert {"a=mid:2", "a=sctp-port:5000", "a=ice-ufrag:00abcdEFGH", "a=end-of-candidates"} <= set(data)
    assert not {"a=rtcp-mux", "a=inactive"} & set(data)
    assert "a=recvonly" in video
    unknown = text((*SESSION[:-1], "a=group:BUNDLE 2 1"), ("m=text 9 TCP/MSRP *", *channel[1:]), VIDEO, VIDEO_CODECS)
    assert sections(publish(unknown).sdp)[1][0] == "m=text 0 TCP/MSRP *"


def test_candidates_fall_in_priority_in_their_order() -> None:
    told = [CandidateAddress(each, 1, each, protocol) for protocol in ("udp", "tcp") for each in ("127.0.0.1", "::1")]
    found = host_candidates(told)
    priorities = [each.priority for each in found]
    assert priorities == sorted(priorities, reverse=True)
    assert len({each.foundation for each in found}) == 4
    assert all(0 < each < 2**31 for each in priorities)


def test_clients_connect_to_tcp_candidates_and_prefer_udp() -> None:
    udp, tcp = host_candidates([CandidateAddress("192.0.2.1", 7, "", each) for each in ("udp", "tcp")])
    assert udp.line() == f"candidate:1 1 udp {udp.priority} 192.0.2.1 7 typ host"
    # RFC 6544 section 4.5, and section 4.2 with the type preference 90: no client takes TCP where UDP works.
    assert (
        tcp.line() == f"candidate:2 1 tcp {90 << 24 | (4 << 13 | 8190) << 8 | 255} 192.0.2.1 7 typ host tcptype passive"
    )
    assert tcp.priority < udp.priority


# --- direction


@pytest.mark.parametrize("direction", ["sendonly", "sendrecv"])
def test_publishers_send(direction: str) -> None:
    assert publish(both().replace("sendonly", direction)).sdp.count("a=recvonly\r\n") == 2


@pytest.mark.parametrize("direction", ["recvonly", "sendrecv"])
def test_viewers_receive(direction: str) -> None:
    assert view(both().replace("sendonly", direction)).sdp.count("a=sendonly\r\n") == 2


@pytest.mark.parametrize("direction", ["recvonly", "inactive"])
def test_a_publisher_that_sends_nothing_is_refused(direction: str) -> None:
    refusal = answer_publisher(offered(both().replace("sendonly", direction)), LOCAL)
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.reason) == (422, "wrong-direction")


def test_a_viewer_that_receives_nothing_is_refused() -> None:
    refusal = answer_viewer(offered(both()), LOCAL, STREAMS, "cname1", [])
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.reason) == (422, "wrong-direction")


@pytest.mark.parametrize("direction", ["sendonly", "sendrecv"])
def test_a_publisher_that_sends_outside_of_the_group_is_refused_and_told_where(direction: str) -> None:
    body = both().replace("BUNDLE 0 1", "BUNDLE 0").replace("a=sendonly", f"a={direction}")
    for offer, named in ((body, "has a=mid:1 "), (body.replace("a=mid:1\r\n", ""), "has no a=mid ")):
        refusal = answer_publisher(offered(offer), LOCAL)
        assert isinstance(refusal, Refusal)
        assert (refusal.status, refusal.reason) == (422, "outside-bundle")
        assert refusal.detail.startswith(f"M-line 2, of video, {named}")
        assert "a=group:BUNDLE must name it" in refusal.detail
    assert len(view(body.replace(f"a={direction}", "a=recvonly")).receivers) == 1


@pytest.mark.parametrize(
    ("line", "other"),
    [("m=video 9", "m=video 0"), ("a=mid:1\r\na=sendonly", "a=mid:1\r\na=recvonly"), ("m=video 9", "m=text 9")],
)
def test_what_sends_no_media_outside_of_the_group_is_passed_over(line: str, other: str) -> None:
    body = both().replace("BUNDLE 0 1", "BUNDLE 0")
    assert line in body
    assert [track.mid for track in publish(body.replace(line, other)).tracks] == ["0"]


def test_data_alone_is_refused() -> None:
    body = text(SESSION[:-1], ("m=application 9 UDP/DTLS/SCTP webrtc-datachannel", *AUDIO[2:6]))
    refusal = answer_publisher(offered(body), LOCAL)
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.reason) == (422, "no-media")


def test_position_passes_over_m_lines_that_flow_the_other_way() -> None:
    second = tuple(line.replace("a=mid:1", "a=mid:2") for line in VIDEO)
    first = tuple(line.replace("a=sendonly", "a=recvonly") for line in VIDEO)
    body = text((*SESSION[:-1], "a=group:BUNDLE 1 2"), first, VIDEO_CODECS, second, VIDEO_CODECS)
    assert [(track.mid, track.position) for track in publish(body).tracks] == [("2", 0)]
    assert [(receiver.mid, receiver.position) for receiver in view(body).receivers] == [("1", 0)]


def test_position_counts_the_m_lines_of_one_kind() -> None:
    first = (*VIDEO, "a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid")
    second = tuple(line.replace("a=mid:1", "a=mid:2") for line in first)
    body = text((*SESSION[:-1], "a=group:BUNDLE 0 1 2"), AUDIO, AUDIO_CODECS, first, VIDEO_CODECS, second, VIDEO_CODECS)
    assert [(track.kind.value, track.position, track.mid) for track in publish(body).tracks] == [
        ("audio", 0, "0"),
        ("video", 0, "1"),
        ("video", 1, "2"),
    ]
    assert [receiver.position for receiver in view(viewing(body)).receivers] == [0, 0, 1]


# --- codecs


def track_of(body: str) -> OfferedTrack:
    (track,) = publish(body).tracks
    return track


def receiver_of(body: str, *publications: PublicationHere) -> Receiver:
    (receiver,) = view(viewing(body), *publications).receivers
    return receiver


def test_every_codec_is_taken_in_the_clients_order() -> None:
    body = video_codecs((99, "H265", ""), (100, "VP9", "profile-id=0"), (101, "VP8", ""), (102, "H264", CONSTRAINED))
    track = track_of(body)
    assert [known.codec.name for known in track.codecs] == [CodecName.VP9, CodecName.VP8, CodecName.H264]
    assert track.format_parameters == ("profile-id=0", "", CONSTRAINED)
    assert "m=video 7882 UDP/TLS/RTP/SAVPF 100 101 102\r\n" in publish(body).sdp


def test_what_pion_offers_for_any_track_is_taken_whole() -> None:
    """VP8 comes first, whatever the track is; a client that is answered with that alone cannot send the rest."""
    codecs = [(96, "VP8"), (98, "VP9"), (102, "H264"), (106, "H264"), (45, "AV1"), (116, "H265")]
    texts = {98: "profile-id=0", 102: BASELINE, 106: SAYS_0}
    body = video_codecs(*((number, name, texts.get(number, "")) for number, name in codecs))
    assert [known.codec.payload_type for known in track_of(body).codecs] == [96, 98, 102, 106, 45]


def test_codecs_of_one_m_line_are_bounded() -> None:
    body = video_codecs(*((number, "VP8", "") for number in range(96, 127)))
    assert len(track_of(body).codecs) == 16


@pytest.mark.parametrize(
    "parameters", ["packetization-mode=2;profile-level-id=42e01f", "packetization-mode=1;profile-level-id=7a001f"]
)
def test_h264_that_is_not_forwarded_is_passed_over(parameters: str) -> None:
    assert track_of(video_codecs((99, "H264", parameters), (101, "VP8", ""))).codecs[0].codec.payload_type == 101


def test_a_payload_type_that_looks_like_rtcp_is_passed_over() -> None:
    assert track_of(video_codecs((72, "VP8", ""), (101, "VP8", ""))).codecs[0].codec.payload_type == 101


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            video_codecs((99, "H265", ""), (100, "rtx", "apt=99")),
            "video is forwarded: it offers H265, rtx; the relay forwards AV1, H264 with packetization-mode 0 or 1, VP8",
        ),
        (
            both().replace("opus/48000/2", "PCMU/8000"),
            "m-line of audio is forwarded: it offers PCMU; the relay forwards Opus.",
        ),
        (both().replace("VP8/90000", "H265/90000"), "m-line of video is forwarded: it offers H265, rtx;"),
        (both().replace("a=rtpmap:111 opus/48000/2\r\n", ""), "it offers none by name;"),
        (
            both().replace("opus/48000/2", "multiopus/48000/6"),
            "it offers multiopus; the relay forwards Opus.",
        ),
        (
            both().replace("opus/48000/2", "opus/48000/6"),
            "it offers opus (as opus/48000/6; minptime=10;useinbandfec=1); the relay forwards Opus.",
        ),
        (both().replace("opus/48000/2", "OPUS/16000"), "it offers OPUS (as OPUS/16000; minptime"),
        (both().replace("VP8/90000", "VP8/8000"), "it offers VP8 (as VP8/8000), rtx;"),
        (video_codecs((72, "VP8", "")), "it offers VP8 (as payload type 72, which RTCP has);"),
        (video_codecs((99, "H264", "packetization-mode=2")), "it offers H264 (packetization-mode=2);"),
    ],
)
def test_a_publisher_is_taken_with_all_that_it_sends_or_refused_with_the_reason(body: str, said: str) -> None:
    refusal = answer_publisher(offered(body), LOCAL)
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.reason) == (422, "no-common-codec")
    assert said in refusal.detail


def refused_view(body: str, *publications: PublicationHere) -> Refusal:
    refusal = answer_viewer(offered(viewing(body)), LOCAL, STREAMS, "cname1", publications)
    assert isinstance(refusal, Refusal)
    return refusal


SAYS_0 = "packetization-mode=0;profile-level-id=42e01f"


@pytest.mark.parametrize(
    ("body", "stream", "said"),
    [
        (
            video_codecs((99, "H265", "")),
            None,
            "The relay forwards AV1, H264 with packetization-mode 0 or 1, VP8, VP9; the m-line of video offers H265.",
        ),
        (
            video_codecs((96, "VP8", "max-fs=3600")),
            (CodecName.AV1, ""),
            "The publisher sends AV1; the m-line of video offers VP8 (max-fs=3600).",
        ),
        (
            video_codecs((96, "H264", SAYS_0)),
            (CodecName.H264, CONSTRAINED),
            f"The publisher sends H264 ({CONSTRAINED}); the m-line of video offers H264 ({SAYS_0}); it differs in "
            "packetization-mode.",
        ),
        (
            video_codecs((96, "H264", BASELINE)),
            (CodecName.H264, HIGH),
            f"The publisher sends H264 ({HIGH}); the m-line of video offers H264 ({BASELINE}); it differs in "
            "profile-level-id.",
        ),
        (
            video_codecs((96, "VP9", "profile-id=0")),
            (CodecName.VP9, "profile-id=2"),
            "The publisher sends VP9 (profile-id=2); the m-line of video offers VP9 (profile-id=0); it differs in "
            "profile-id.",
        ),
    ],
)
def test_no_common_codec_is_422_for_a_viewer_with_what_is_sent_and_what_it_offers(
    body: str, stream: tuple[CodecName, str] | None, said: str
) -> None:
    refusal = refused_view(body, *([published(*stream)] if stream else []))
    assert (refusal.status, refusal.reason, refusal.detail) == (422, "no-common-codec", said)


@pytest.mark.parametrize("name", ["OPUS/48000", "opus/48000/1", "Opus/48000/2"])
def test_opus_is_taken_with_one_channel_or_without_their_number_and_comes_back_as_it_was_offered(name: str) -> None:
    body = both().replace("opus/48000/2", name)
    for answer in (publish(body), view(viewing(body), published(CodecName.OPUS)), view(viewing(body))):
        assert f"a=rtpmap:111 {name}\r\n" in answer.sdp


def test_a_viewer_keeps_all_codecs_the_publishers_first() -> None:
    body = video_codecs(
        (96, "VP8", ""), (97, "rtx", "apt=96"), (98, "AV1", ""), (99, "rtx", "apt=98"), (100, "red", "")
    )
    receiver = receiver_of(body, published(CodecName.AV1, "level-idx=5;profile=0;tier=0"))
    assert [codec.payload_type for codec, _ in receiver.codecs] == [98, 96]
    assert "m=video 7882 UDP/TLS/RTP/SAVPF 98 99 96 97\r\n" in view(viewing(body), published(CodecName.AV1)).sdp


def may_send(*codecs: tuple[int, CodecName, str], in_use: int | None = None) -> PublicationHere:
    """A publication of several codecs."""
    formats = tuple(PublishedFormat(number, name, 90000, text) for number, name, text in codecs)
    publication = replace(published(codecs[0][1], codecs[0][2]), formats=formats)
    return publication if in_use is None else publication.with_codec(in_use)


SEVERAL = ((96, CodecName.VP8, ""), (98, CodecName.VP9, "profile-id=0"), (102, CodecName.H264, CONSTRAINED))


def test_a_viewer_is_answered_with_all_that_may_be_sent_what_is_in_use_first() -> None:
    body = video_codecs((45, "AV1", ""), (97, "H264", CONSTRAINED), (99, "VP8", ""), (100, "H264", SAYS_0))
    unknown = receiver_of(body, may_send(*SEVERAL))
    assert [codec.payload_type for codec, _ in unknown.codecs] == [99, 97, 45, 100]
    known = receiver_of(body, may_send(*SEVERAL, in_use=102))
    assert [codec.payload_type for codec, _ in known.codecs] == [97, 99, 45, 100]
    lacks_the_one_in_use = receiver_of(body, may_send(*SEVERAL, in_use=98))
    assert {codec.payload_type for codec, _ in lacks_the_one_in_use.codecs} == {99, 97, 45, 100}


def test_the_payload_types_that_a_viewer_can_play_are_told_with_its_own() -> None:
    receiver = receiver_of(video_codecs((120, "VP8", ""), (121, "rtx", "apt=120"), (126, "H264", BASELINE)))
    vp8, h264 = (codec for codec, _ in receiver.codecs)
    assert formats_for(receiver, may_send(*SEVERAL)) == (Format(96, vp8), Format(102, h264))
    assert formats_for(receiver, published(CodecName.VP8)) == ()


def test_a_viewer_is_refused_only_when_it_can_play_nothing_that_may_be_sent() -> None:
    refusal = refused_view(video_codecs((45, "AV1", "")), may_send(*SEVERAL, in_use=98))
    assert (refusal.status, refusal.detail) == (
        422,
        f"The publisher may send VP8, VP9 (profile-id=0), H264 ({CONSTRAINED}); the m-line of video offers AV1.",
    )


def test_a_viewer_without_the_publishers_video_codec_still_hears() -> None:
    answer = view(viewing(both()), published(CodecName.OPUS), published(CodecName.H264, BASELINE))
    assert [receiver.kind for receiver in answer.receivers] == [MediaKind.AUDIO]
    assert "m=video 0 " in answer.sdp


@pytest.mark.parametrize(
    ("stream", "decoders", "chosen"),
    [
        (BASELINE, (CONSTRAINED, BASELINE), 1),
        (CONSTRAINED, (BASELINE, CONSTRAINED), 1),
        (BASELINE, (CONSTRAINED,), 0),
        ("packetization-mode=1;profile-level-id=42001e", (HIGH, CONSTRAINED), 1),
        ("packetization-mode=1", (CONSTRAINED,), 0),
        (
            "packetization-mode=1;profile-level-id=4d401f",
            (CONSTRAINED, "packetization-mode=1;profile-level-id=4d001f"),
            1,
        ),
        ("packetization-mode=1;profile-level-id=4d401f", (CONSTRAINED, HIGH), 1),
        ("packetization-mode=1;profile-level-id=640c1f", (HIGH,), 0),
        (HIGH, (CONSTRAINED, BASELINE), None),
        (HIGH, (CONSTRAINED, "packetization-mode=1;profile-level-id=640029"), 1),
    ],
)
def test_h264_is_matched_by_profile(stream: str, decoders: tuple[str, ...], chosen: int | None) -> None:
    receiver = receiver_of(video_codecs(*((96 + index, "H264", text) for index, text in enumerate(decoders))))
    codec = codec_for(receiver, published(CodecName.H264, stream))
    assert (codec.payload_type - 96 if codec else None) == chosen


@pytest.mark.parametrize(
    ("stream", "decoders", "chosen"),
    [
        (CONSTRAINED, ("",), 0),
        (HIGH, ("",), 0),
        (CONSTRAINED, ("profile-level-id=42e01f",), 0),
        (CONSTRAINED, (SAYS_0,), None),
        (CONSTRAINED, ("", SAYS_0, CONSTRAINED), 2),
        (CONSTRAINED, ("profile-level-id=42e01f", BASELINE), 1),
        (SAYS_0, (SAYS_0,), 0),
        (SAYS_0, (CONSTRAINED,), 0),
        (SAYS_0, (CONSTRAINED, ""), 1),
        ("profile-level-id=42e01f", (CONSTRAINED, SAYS_0), 1),
        ("", (HIGH, CONSTRAINED), 1),
        ("", ("",), 0),
    ],
)
def test_h264_is_matched_by_how_its_packets_are_made_and_by_what_is_not_said(
    stream: str, decoders: tuple[str, ...], chosen: int | None
) -> None:
    receiver = receiver_of(video_codecs(*((96 + index, "H264", text) for index, text in enumerate(decoders))))
    codec = codec_for(receiver, published(CodecName.H264, stream))
    assert (codec.payload_type - 96 if codec else None) == chosen


@pytest.mark.parametrize("stream", [CONSTRAINED, HIGH])
@pytest.mark.parametrize(
    "body", [real("gstreamer-1.22-webrtcbin.h264.viewer"), viewing(video_codecs((103, "H264", "")))]
)
def test_a_viewer_that_says_nothing_of_its_h264_gets_its_own_format_back(body: str, stream: str) -> None:
    """GStreamer, whose caps nobody completes."""
    answer = view(body, published(CodecName.OPUS), published(CodecName.H264, stream))
    assert "m=video 0 " not in answer.sdp
    assert "a=rtpmap:103 H264/90000\r\n" in answer.sdp
    assert "a=fmtp:103" not in answer.sdp


@pytest.mark.parametrize("parameters", ["", "profile-level-id=42e01f", SAYS_0])
def test_a_publisher_of_single_nal_units_is_taken(parameters: str) -> None:
    track = track_of(video_codecs((103, "H264", parameters)))
    assert (track.codecs[0].codec.name, track.format_parameters[0]) == (CodecName.H264, parameters)


@pytest.mark.parametrize(
    ("name", "stream", "decoder", "plays"),
    [
        ("VP9", "", "profile-id=0", True),
        ("VP9", "profile-id=2", "profile-id=0", False),
        ("VP9", "profile-id=2", "profile-id=2", True),
        ("AV1", "level-idx=5;profile=0;tier=0", "", True),
        ("AV1", "profile=1", "profile=0", False),
        ("VP8", "max-fs=12288;max-fr=60", "", True),
    ],
)
def test_profiles_are_matched_exactly(name: str, stream: str, decoder: str, plays: bool) -> None:
    codec = codec_for(receiver_of(video_codecs((96, name, decoder))), published(CodecName(name.lower()), stream))
    assert (codec is not None) is plays


def test_a_codec_of_the_other_kind_is_none() -> None:
    assert codec_for(receiver_of(video_only()), published(CodecName.OPUS)) is None


def test_opus_parameters_come_back() -> None:
    body = both().replace("minptime=10;useinbandfec=1", "minptime=10;useinbandfec=1;stereo=1;sprop-stereo=1")
    answer = publish(body)
    assert "a=fmtp:111 minptime=10;useinbandfec=1;stereo=1\r\n" in answer.sdp
    assert answer.tracks[0].format_parameters[0].endswith("sprop-stereo=1")


# --- repair and feedback


def test_repair_follows_its_codec() -> None:
    body = video_only(
        formats="97 98 96 99",
        codecs=(*VIDEO_CODECS, "a=rtpmap:98 VP9/90000", "a=rtpmap:99 rtx/90000", "a=fmtp:99 apt=98"),
    )
    track = track_of(body)
    numbers = [(known.codec.payload_type, known.codec.rtx_payload_type) for known in track.codecs]
    assert numbers == [(98, 99), (96, 97)]
    assert "UDP/TLS/RTP/SAVPF 98 99 96 97\r\n" in publish(body).sdp


def test_without_repair_no_repair_ssrc_is_announced() -> None:
    answer = view(viewing(video_codecs((96, "VP8", ""))))
    assert answer.receivers[0].rtx_ssrc is None
    assert "FID" not in answer.sdp
    assert "1001" not in answer.sdp


def test_feedback_is_what_both_sides_do() -> None:
    values = ("nack", "nack pli", "ccm fir", "goog-remb", "transport-cc", "ccm tmmbr", "nack rpsi")
    body = video_only(*(f"a=rtcp-fb:96 {value}" for value in values))
    assert set(re.findall("a=rtcp-fb:96 (.*)", publish(body).sdp)) == {"nack\r", "nack pli\r", "ccm fir\r"}
    expected = {"nack\r", "nack pli\r", "ccm fir\r", "goog-remb\r"}
    assert set(re.findall("a=rtcp-fb:96 (.*)", view(viewing(body)).sdp)) == expected
    track = track_of(body)
    assert (track.codecs[0].nack, track.codecs[0].pli, track.codecs[0].fir) == (True, True, True)


def test_feedback_for_all_payload_types_counts() -> None:
    assert track_of(video_only("a=rtcp-fb:* ccm fir")).codecs[0].fir


def test_feedback_is_each_codecs_own() -> None:
    body = video_codecs((96, "VP8", ""), (98, "VP9", "")) + "a=rtcp-fb:96 nack\r\na=rtcp-fb:98 nack pli\r\n"
    track = track_of(body)
    assert [(known.nack, known.pli, known.fir) for known in track.codecs] == [
        (True, False, False),
        (False, True, False),
    ]
    assert [line for line in publish(body).sdp.splitlines() if "rtcp-fb" in line] == [
        "a=rtcp-fb:96 nack",
        "a=rtcp-fb:98 nack pli",
    ]


# --- extensions

TCC = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
MID = "urn:ietf:params:rtp-hdrext:sdes:mid"
RID = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"
DELAY = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay"


def kinds(extensions: object) -> list[tuple[int, ExtensionKind]]:
    return [(extension.id, extension.kind) for extension in extensions]


def test_transport_cc_needs_its_extension_and_its_feedback() -> None:
    alone = video_only(f"a=extmap:3 {TCC}")
    assert kinds(track_of(alone).extensions) == []
    together = video_only(f"a=extmap:3 {TCC}", "a=rtcp-fb:96 transport-cc")
    assert kinds(track_of(together).extensions) == [(3, ExtensionKind.TRANSPORT_CC)]
    assert "a=rtcp-fb:96 transport-cc\r\n" in publish(together).sdp


def test_viewers_get_no_transport_cc_and_no_rid() -> None:
    body = video_only(f"a=extmap:3 {TCC}", "a=rtcp-fb:96 transport-cc", f"a=extmap:4 {MID}", f"a=extmap:5 {RID}")
    answer = view(viewing(body))
    assert kinds(answer.receivers[0].extensions) == [(4, ExtensionKind.MID)]
    assert "transport-cc" not in answer.sdp


def test_rid_extension_is_taken_only_with_rids() -> None:
    assert kinds(track_of(video_only(f"a=extmap:5 {RID}")).extensions) == []
    assert kinds(track_of(video_only(f"a=extmap:5 {RID}", "a=rid:a send")).extensions) == [(5, ExtensionKind.RID)]


@pytest.mark.parametrize(
    ("suffix", "from_publisher", "to_viewer"),
    [
        ("", "a=extmap:6 ", "a=extmap:6 "),
        ("/sendrecv", "a=extmap:6/sendrecv ", "a=extmap:6/sendrecv "),
        ("/sendonly", "a=extmap:6/recvonly ", None),
        ("/recvonly", None, "a=extmap:6/sendonly "),
        ("/inactive", None, None),
    ],
)
def test_an_extensions_direction_is_mirrored(suffix: str, from_publisher: str | None, to_viewer: str | None) -> None:
    body = video_only(f"a=extmap:6{suffix} {DELAY}")
    for sdp, expected in ((publish(body).sdp, from_publisher), (view(viewing(body)).sdp, to_viewer)):
        found = [line for line in sdp.splitlines() if line.startswith("a=extmap:")]
        assert found == ([] if expected is None else [expected + DELAY])


def test_unknown_extensions_and_placeholder_ids_are_left_out() -> None:
    body = video_only("a=extmap:7 urn:example:x", f"a=extmap:4096 {MID}")
    assert kinds(track_of(body).extensions) == []
    assert "extmap" not in publish(body).sdp


# --- simulcast


def encodings_of(*lines: str) -> list[str | None]:
    return [encoding.rid for encoding in track_of(video_only(*lines)).encodings]


@pytest.mark.parametrize(
    ("rids", "lowest_first"),
    [
        ("q;h;f", "q h f"),
        ("f;h;q", "q h f"),
        ("h;l;m", "l m h"),
        ("f;q", "q f"),
        ("high;low", "low high"),
        ("0;1;2", "2 1 0"),
        ("r0;r1;r2", "r0 r1 r2"),
        ("a,b;c", "a c"),
        ("~q;h;f", "q h f"),
    ],
)
def test_simulcast_encodings_come_lowest_first(rids: str, lowest_first: str) -> None:
    names = re.findall("[a-z0-9]+", rids)
    lines = [f"a=rid:{name} send" for name in names]
    assert encodings_of(*lines, f"a=simulcast:send {rids}") == lowest_first.split()


def test_restrictions_tell_more_than_names() -> None:
    lines = ["a=rid:q send max-width=1280;max-height=720", "a=rid:f send max-width=320", "a=simulcast:send q;f"]
    assert encodings_of(*lines) == ["f", "q"]


def test_simulcast_is_answered_in_the_offers_order_with_three_at_most() -> None:
    lines = [f"a=rid:{name} send" for name in "dcba"]
    answer = publish(video_only(*lines, "a=simulcast:send d;c;b;a"))
    assert [line for line in answer.sdp.splitlines() if "rid" in line or "simulcast" in line] == [
        "a=rid:d recv",
        "a=rid:c recv",
        "a=rid:b recv",
        "a=simulcast:recv d;c;b",
    ]
    assert len(answer.tracks[0].encodings) == 3


def test_a_lone_rid_is_no_simulcast() -> None:
    body = video_only("a=rid:a send")
    assert encodings_of("a=rid:a send") == ["a"]
    assert "a=rid:a recv\r\n" in publish(body).sdp
    assert "simulcast" not in publish(body).sdp


def test_simulcast_of_old_clients_is_read_from_the_ssrc_groups() -> None:
    lines = ("a=ssrc-group:SIM 1 2 3", "a=ssrc-group:FID 1 11", "a=ssrc-group:FID 2 12", "a=ssrc-group:FID 3 13")
    assert track_of(video_only(*lines)).encodings == (
        OfferedEncoding(None, 1, 11),
        OfferedEncoding(None, 2, 12),
        OfferedEncoding(None, 3, 13),
    )


def test_a_repair_ssrc_that_is_listed_first_is_not_taken_for_the_media() -> None:
    lines = ("a=ssrc:11 cname:x", "a=ssrc:1 cname:x", "a=ssrc-group:FID 1 11")
    assert track_of(video_only(*lines)).encodings == (OfferedEncoding(None, 1, 11),)


def test_an_ssrc_claimed_twice_is_left_to_be_learnt() -> None:
    lines = ("a=ssrc-group:SIM 1 2", "a=ssrc-group:FID 1 2", "a=ssrc-group:FID 2 9")
    assert track_of(video_only(*lines)).encodings == (OfferedEncoding(None, 1, None), OfferedEncoding(None, 2, 9))


# --- anything


def test_whatever_is_taken_is_answered_with_something_that_reads_back() -> None:
    answered = 0
    for seed in range(2_000):
        offer = parse_offer(mutated(seed), LIMITS)
        if not isinstance(offer, Offer):
            continue
        for answer in (answer_publisher(offer, LOCAL), answer_viewer(offer, LOCAL, STREAMS, "cname1", [])):
            if isinstance(answer, Refusal):
                continue
            # aiortc raises on the client's own scrambled numbers in fmtp lines.
            assert len(SessionDescription.parse(re.sub("a=fmtp:.*\r\n", "", answer.sdp)).media) == len(offer.media)
            assert re.fullmatch(r"([a-z]=[\x20-\x7e]*\r\n)+", answer.sdp)
            answered += 1
    assert answered > 1_000
