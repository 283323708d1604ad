"""Which packets of a publisher can be told apart."""

import pytest

from millrace.relay.contract.refusal import Refusal
from millrace.relay.negotiation.answering import PublisherAnswer, answer_publisher
from millrace.relay.sdp.offer import Offer, parse_offer
from tests.unit.sdp_samples import LIMITS, LOCAL, both

MID = "a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid\r\n"
SHARED = both().replace("SAVPF 111", "SAVPF 96").replace(":111 ", ":96 ")
"""Sound and picture on payload type 96, without anything else to tell them apart."""


def answer(body: str) -> PublisherAnswer | Refusal:
    offer = parse_offer(body, LIMITS)
    assert isinstance(offer, Offer), offer
    return answer_publisher(offer, LOCAL)


def in_both(body: str, line: str) -> str:
    return body.replace("a=mid:0\r\n", f"a=mid:0\r\n{line}").replace("a=mid:1\r\n", f"a=mid:1\r\n{line}")


def ssrc(number: int) -> str:
    return f"a=ssrc:{number} cname:x\r\n"


AUDIO_NAMED = SHARED.replace("a=mid:0\r\n", f"a=mid:0\r\n{ssrc(5)}")


@pytest.mark.parametrize(
    "body",
    [
        SHARED,
        # Only one of the two names its streams.
        AUDIO_NAMED,
        SHARED.replace("a=mid:1\r\n", f"a=mid:1\r\n{MID}"),
        # An extension that the client only takes.
        in_both(SHARED, MID.replace("extmap:1 ", "extmap:1/recvonly ")),
        # Rids name encodings of one m-line, and no m-line.
        SHARED + "a=rid:lo send\r\na=rid:hi send\r\na=simulcast:send lo;hi\r\n",
    ],
)
def test_m_lines_whose_packets_nothing_tells_apart_are_refused_with_what_would(body: str) -> None:
    refusal = answer(body)
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.reason) == (422, "ambiguous-payload-type")
    assert "shares payload type 96 with another," in refusal.detail


@pytest.mark.parametrize("body", [in_both(SHARED, MID), AUDIO_NAMED + ssrc(6), AUDIO_NAMED + MID])
def test_a_shared_payload_type_is_taken_where_ssrcs_or_mids_tell_packets_apart(body: str) -> None:
    taken = answer(body)
    assert isinstance(taken, PublisherAnswer), taken
    assert [track.codecs[0].codec.payload_type for track in taken.tracks] == [96, 96]
    assert taken.tracks[1].codecs[0].codec.rtx_payload_type == 97


def test_a_codec_on_a_shared_number_gives_way_to_the_next_one() -> None:
    vp9 = "a=rtpmap:98 VP9/90000\r\na=rtpmap:99 rtx/90000\r\na=fmtp:99 apt=98\r\n"
    taken = answer(AUDIO_NAMED.replace("SAVPF 96 97", "SAVPF 96 97 98 99") + vp9)
    assert isinstance(taken, PublisherAnswer), taken
    assert "m=video 7882 UDP/TLS/RTP/SAVPF 98 99\r\n" in taken.sdp


def test_a_repair_on_a_shared_number_is_left_out_where_its_stream_is_not_named() -> None:
    body = both().replace("SAVPF 111", "SAVPF 97").replace(":111 ", ":97 ")
    audio_named = body.replace("a=mid:0\r\n", f"a=mid:0\r\n{ssrc(5)}")
    taken = answer(audio_named + ssrc(6))
    assert isinstance(taken, PublisherAnswer), taken
    assert "m=video 7882 UDP/TLS/RTP/SAVPF 96\r\n" in taken.sdp
    assert taken.tracks[1].codecs[0].codec.rtx_payload_type is None
    named = answer(audio_named + "a=ssrc-group:FID 6 7\r\n" + ssrc(6) + ssrc(7))
    assert isinstance(named, PublisherAnswer), named
    assert "m=video 7882 UDP/TLS/RTP/SAVPF 96 97\r\n" in named.sdp
