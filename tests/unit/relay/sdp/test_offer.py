import random
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.relay.contract.commands import DtlsRole
from millrace.relay.contract.refusal import Refusal
from millrace.relay.sdp.lines import Direction, SdpLimits
from millrace.relay.sdp.offer import Offer, parse_offer
from tests.unit.sdp_samples import (
    AUDIO,
    AUDIO_CODECS,
    DIGEST,
    LIMITS,
    NAMES,
    SESSION,
    TRANSPORT,
    VIDEO,
    VIDEO_CODECS,
    both,
    real,
    text,
    video_only,
)


def taken(body: str) -> Offer:
    offer = parse_offer(body, LIMITS)
    assert isinstance(offer, Offer), offer
    return offer


def refused(body: str, limits: SdpLimits = LIMITS) -> tuple[int, str]:
    refusal = parse_offer(body, limits)
    assert isinstance(refusal, Refusal), refusal
    assert refusal.detail
    return refusal.status, refusal.reason


@pytest.mark.parametrize("name", NAMES)
def test_real_offers_are_taken_whole(name: str) -> None:
    offer = taken(real(name))
    assert len(offer.media) == 2
    assert all(media.alive and media.formats for media in offer.media)
    assert offer.bundle == tuple(media.mid for media in offer.media)
    assert len(offer.remote.fingerprints) == 1


def test_a_bundle_only_m_line_with_port_0_is_alive_and_another_is_rejected() -> None:
    head = "m=video 0 UDP/TLS/RTP/SAVPF 96 97"
    rejected = both().replace(VIDEO[0], head)
    assert [media.alive for media in taken(rejected).media] == [True, False]
    assert [media.alive for media in taken(rejected + "a=bundle-only\r\n").media] == [True, True]


@pytest.mark.parametrize(
    ("setup", "role"),
    [("actpass", DtlsRole.SERVER), ("active", DtlsRole.SERVER), ("passive", DtlsRole.CLIENT)],
)
def test_only_a_passive_client_makes_us_the_dtls_client(setup: str, role: DtlsRole) -> None:
    assert taken(both().replace("a=setup:actpass", f"a=setup:{setup}")).remote.role is role


def test_transport_attributes_may_stand_above_all_m_lines_or_only_in_the_first_of_the_group() -> None:
    bare_video = (VIDEO[0], VIDEO[1], "a=mid:1", "a=sendonly")
    assert taken(text(SESSION, AUDIO, AUDIO_CODECS, bare_video, VIDEO_CODECS)).remote.ufrag == "abcd"
    bare_audio = (AUDIO[0], "a=mid:0", "a=rtcp-mux")
    assert taken(text(SESSION, TRANSPORT, bare_audio, AUDIO_CODECS, bare_video, VIDEO_CODECS)).remote.ufrag == "abcd"


def test_an_m_line_outside_the_group_is_not_alive() -> None:
    offer = taken(both().replace("BUNDLE 0 1", "BUNDLE 1"))
    assert [media.alive for media in offer.media] == [False, True]


def test_one_m_line_needs_no_group_and_no_mid() -> None:
    offer = taken(video_only().replace("a=mid:1\r\n", ""))
    assert offer.bundle is None
    assert offer.media[0].alive
    assert offer.media[0].mid is None


def test_a_strong_fingerprint_beside_a_weak_one_is_enough() -> None:
    weak = f"a=fingerprint:sha-1 {':'.join(['CD'] * 20)}"
    offer = taken(both().replace(TRANSPORT[2], f"{weak}\r\n{TRANSPORT[2]}"))
    assert (offer.remote.fingerprint_hash, offer.remote.fingerprints) == ("sha-256", (bytes([0xAB] * 32),))


def test_several_certificates_are_kept_under_one_hash() -> None:
    other = f"a=fingerprint:SHA-256 {':'.join(['cd'] * 32)}"
    offer = taken(both().replace(TRANSPORT[2], f"{TRANSPORT[2]}\r\n{other}", 1))
    assert offer.remote.fingerprints == (bytes([0xAB] * 32), bytes([0xCD] * 32))


def test_a_direction_above_all_m_lines_is_inherited() -> None:
    body = text((*SESSION, "a=recvonly"), AUDIO, AUDIO_CODECS, VIDEO, VIDEO_CODECS).replace("a=sendonly\r\n", "", 1)
    assert [media.direction for media in taken(body).media] == [Direction.RECVONLY, Direction.SENDONLY]


def test_lines_may_end_in_lf_alone() -> None:
    assert taken(both().replace("\r\n", "\n")) == taken(both())


LONG_PWD = f"a=ice-pwd:{'p' * 22}"
EXTENSIONS = "a=extmap:1 urn:3gpp:video-orientation\r\na=extmap:2 urn:x\r\n"
RIDS = "a=rid:lo send\r\na=rid:hi send pt=96\r\na=simulcast:send lo;hi\r\n"
SSRCS = "a=ssrc-group:FID 5 6\r\na=ssrc:5 cname:x\r\na=ssrc:6 cname:x\r\na=ssrc-group:SIM 5 7\r\n"
WHOLE = both() + EXTENSIONS + RIDS + SSRCS
PASSED_OVER = {
    "payload type out of range": WHOLE.replace("SAVPF 96 97", "SAVPF 96 97 128 4294967296"),
    "payload type no number": WHOLE.replace("SAVPF 96 97", "SAVPF 96 x 97 -1"),
    "payload type no token": WHOLE.replace("SAVPF 96 97", "SAVPF 96 (97) \u00e4 97"),
    "payload type twice": WHOLE.replace("SAVPF 96 97", "SAVPF 96 97 96 97"),
    "payload type without a name": WHOLE.replace("SAVPF 96 97", "SAVPF 96 97 98"),
    "rtpmap twice": WHOLE + "a=rtpmap:97 H264/90000\r\na=rtpmap:96 rtx/90000\r\n",
    "rtpmap of another m-line": WHOLE + "a=rtpmap:111 opus/48000/2\r\n",
    "rtpmap without clock": WHOLE + "a=rtpmap:98 VP9\r\n",
    "rtpmap without anything": WHOLE + "a=rtpmap\r\na=rtpmap:\r\na=rtpmap:98\r\n",
    "rtpmap name": WHOLE + "a=rtpmap:98 V P9/90000\r\n",
    "rtpmap number": WHOLE + "a=rtpmap:128 VP9/90000\r\na=rtpmap:x VP9/90000\r\n",
    "a broken rtpmap before the good one": WHOLE.replace("a=rtpmap:96", "a=rtpmap:96 V P8/90000\r\na=rtpmap:96"),
    "fmtp": WHOLE + "a=fmtp:x y\r\na=fmtp:96\r\na=fmtp:96 \u00e4\r\na=fmtp\r\n",
    "fmtp twice": WHOLE + "a=fmtp:97 apt=98\r\n",
    "rtcp-fb": WHOLE + "a=rtcp-fb:200 nack\r\na=rtcp-fb:x nack\r\na=rtcp-fb\r\na=rtcp-fb:96\r\n",
    "rtcp-fb twice": WHOLE + "a=rtcp-fb:96 nack pli\r\n",
    "mid twice": WHOLE + "a=mid:1\r\n",
    "extension id": WHOLE + "a=extmap:0 urn:y\r\na=extmap:256 urn:y\r\na=extmap:x urn:y\r\n",
    "extension id twice": WHOLE + "a=extmap:1 urn:y\r\na=extmap:2/sendonly urn:z\r\n",
    "extension without URI": WHOLE + "a=extmap:3\r\na=extmap\r\n",
    "extension direction": WHOLE + "a=extmap:3/up urn:y\r\na=extmap:3/ urn:y\r\n",
    "rid": WHOLE + "a=rid:a.b send\r\na=rid:a\r\na=rid\r\na=rid:a up\r\n",
    "rid twice": WHOLE + "a=rid:lo send max-width=1\r\na=rid:hi recv\r\n",
    "simulcast": WHOLE.replace(
        "a=simulcast", "a=simulcast:send\r\na=simulcast:up a\r\na=simulcast:send a.b\r\na=simulcast"
    ),
    "simulcast twice": WHOLE + "a=simulcast:send hi;lo\r\n",
    "simulcast twice the rid": WHOLE.replace("send lo;hi", "send lo;hi;lo;a.b"),
    "ssrc": WHOLE + "a=ssrc:4294967296 cname:x\r\na=ssrc:x cname:x\r\na=ssrc\r\n",
    "ssrc twice": WHOLE + "a=ssrc:5 cname:y\r\n",
    "ssrc group": WHOLE + "a=ssrc-group:FID 1 x\r\na=ssrc-group\r\na=ssrc-group:FID 5\r\na=ssrc-group:SIM x\r\n",
    "ssrc group of one": WHOLE + "a=ssrc-group:FID 7 7\r\n",
    "ssrc group twice": WHOLE + "a=ssrc-group:FID 5 8\r\na=ssrc-group:SIM 8 9\r\n",
}
"""Lines about formats, extensions and streams that are broken, or the second of their number."""


@pytest.mark.parametrize("name", PASSED_OVER)
def test_a_broken_line_costs_its_format_alone_and_the_first_of_two_counts(name: str) -> None:
    assert PASSED_OVER[name] != WHOLE
    expected, offer = taken(WHOLE), taken(PASSED_OVER[name])
    expected_media = [replace(media, formats_text="") for media in expected.media]
    assert [replace(media, formats_text="") for media in offer.media] == expected_media
    assert replace(offer, media=()) == replace(expected, media=())


REFUSALS = {
    "empty": ("", 400, "not-sdp"),
    "json": ('{"sdp": "v=0"}', 400, "not-sdp"),
    "no version": (both().removeprefix("v=0\r\n"), 400, "not-sdp"),
    "version 1": (both().replace("v=0", "v=1", 1), 400, "not-sdp"),
    "a nul": (both().replace("s=-", "s=\0"), 400, "control-character"),
    "a stray CR": (both().replace("s=-", "s=a\rb=c"), 400, "control-character"),
    "no m-line": (text(SESSION, TRANSPORT), 400, "no-media"),
    "all rejected": (video_only().replace("m=video 9", "m=video 0"), 422, "no-media"),
    "half an m-line": (both().replace(VIDEO[0], "m=video 9"), 400, "bad-m-line"),
    "port out of range": (both().replace("m=video 9", "m=video 70000"), 400, "bad-m-line"),
    "payload types without end": (both().replace("SAVPF 96 97", "SAVPF " + "9 " * 129), 400, "bad-m-line"),
    "no ufrag": (both().replace("a=ice-ufrag:abcd\r\n", ""), 400, "no-ice-ufrag"),
    "short ufrag": (both().replace("ufrag:abcd", "ufrag:abc"), 400, "bad-ice-ufrag"),
    "long ufrag": (both().replace("ufrag:abcd", f"ufrag:{'a' * 257}"), 400, "bad-ice-ufrag"),
    "illegal ufrag": (both().replace("ufrag:abcd", "ufrag:ab:d"), 400, "bad-ice-ufrag"),
    "no pwd": (both().replace(LONG_PWD + "\r\n", ""), 400, "no-ice-pwd"),
    "short pwd": (both().replace(LONG_PWD, LONG_PWD[:-1]), 400, "bad-ice-pwd"),
    "long pwd": (both().replace(LONG_PWD, LONG_PWD + "p" * 235), 400, "bad-ice-pwd"),
    "no fingerprint": (both().replace(TRANSPORT[2] + "\r\n", ""), 400, "no-fingerprint"),
    "short fingerprint": (both().replace(DIGEST, DIGEST[:-3]), 400, "bad-fingerprint"),
    "no hex": (both().replace(DIGEST, "XY" + DIGEST[2:]), 400, "bad-fingerprint"),
    "sha-1": (both().replace(f"sha-256 {DIGEST}", "sha-1 " + DIGEST[: 20 * 3 - 1]), 422, "weak-fingerprint"),
    "md5": (both().replace(f"sha-256 {DIGEST}", "MD5 " + DIGEST[: 16 * 3 - 1]), 422, "weak-fingerprint"),
    "unknown hash": (both().replace("sha-256", "sha3-256"), 422, "weak-fingerprint"),
    "hundred fingerprints": (both() + f"{TRANSPORT[2]}\r\n" * 100, 400, "too-many-fingerprints"),
    "plain RTP": (
        both().replace("UDP/TLS/RTP/SAVPF", "RTP/AVP").replace(TRANSPORT[2] + "\r\n", ""),
        400,
        "no-fingerprint",
    ),
    "no RTP": (both().replace("UDP/TLS/RTP/SAVPF 96", "UDP/TLS/UDPTL 96"), 422, "no-dtls"),
    "crypto": (both() + f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{'x' * 40}\r\n", 422, "sdes"),
    "crypto above": (both().replace("t=0 0", "t=0 0\r\na=crypto:1 x y"), 422, "sdes"),
    "lite on both sides": (both().replace("t=0 0", "t=0 0\r\na=ice-lite"), 422, "ice-lite"),
    "holdconn": (both().replace("actpass", "holdconn"), 422, "setup-holdconn"),
    "no setup": (both().replace("a=setup:actpass\r\n", ""), 400, "no-setup"),
    "odd setup": (both().replace("actpass", "pass"), 400, "bad-setup"),
    "no mux": (both().replace("a=rtcp-mux\r\n", ""), 422, "no-rtcp-mux"),
    "no group": (both().replace("a=group:BUNDLE 0 1\r\n", ""), 422, "no-bundle"),
    "group of strangers": (both().replace("BUNDLE 0 1", "BUNDLE 0 7"), 400, "bad-bundle"),
    "group with a double": (both().replace("BUNDLE 0 1", "BUNDLE 0 0"), 400, "bad-bundle"),
    "same mid": (both().replace("a=mid:1", "a=mid:0"), 400, "duplicate-mid"),
    "two mids": (both() + "a=mid:2\r\n", 400, "bad-mid"),
    "long mid": (both().replace("a=mid:1", f"a=mid:{'1' * 65}"), 400, "bad-mid"),
    "ssrc in two m-lines": (
        (both() + "a=ssrc:7 cname:x\r\n").replace("a=mid:0", "a=mid:0\r\na=ssrc:7 cname:x"),
        400,
        "duplicate-ssrc",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refuses_with_its_own_reason(name: str) -> None:
    body, status, reason = REFUSALS[name]
    assert refused(body) == (status, reason)


def test_an_extension_id_with_two_meanings_in_a_group_is_refused() -> None:
    mid, level = "urn:ietf:params:rtp-hdrext:sdes:mid", "urn:ietf:params:rtp-hdrext:ssrc-audio-level"
    body = (
        both().replace("a=mid:0", f"a=mid:0\r\na=extmap:1 {level}").replace("a=mid:1", f"a=mid:1\r\na=extmap:1 {mid}")
    )
    assert refused(body) == (400, "extension-id-conflict")


def test_every_limit_is_refused_one_past_it() -> None:
    body = both()
    lines = body.count("\n")
    size = len(body)
    assert isinstance(parse_offer(body, SdpLimits(size, lines, 2)), Offer)
    assert refused(body, SdpLimits(size - 1, lines, 2)) == (400, "sdp-too-large")
    assert refused(body, SdpLimits(size, lines - 1, 2)) == (400, "too-many-lines")
    assert refused(body, SdpLimits(size, lines, 1)) == (400, "too-many-m-lines")


def test_size_is_counted_in_bytes() -> None:
    body = both().replace("s=-", "s=\u20ac")
    assert isinstance(parse_offer(body, replace(LIMITS, sdp_bytes=len(body) + 2)), Offer)
    assert refused(body, replace(LIMITS, sdp_bytes=len(body) + 1)) == (400, "sdp-too-large")


def filled(head: str, line: str) -> str:
    return head + line * ((65536 - len(head)) // len(line))


def numbered(head: str, template: str) -> str:
    body = [head]
    size = len(head)
    for index in range(20_000):
        line = template.format(index)
        if (size := size + len(line)) > 65536:
            break
        body.append(line)
    return "".join(body)


HOSTILE = {
    "lines": filled(both(), "a=x\r\n"),
    "m-lines": filled(text(SESSION), "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n"),
    "mids": numbered(text(SESSION), "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:{0}\r\n"),
    "group": both().replace("BUNDLE 0 1", "BUNDLE " + " ".join(map(str, range(10_000)))),
    "one line": both() + "a=" + "x" * 60_000 + "\r\n",
    "payload types": both().replace("SAVPF 96 97", "SAVPF " + "96 " * 20_000),
    "fmtp": both() + "a=fmtp:96 " + ";".join(["a=b"] * 15_000) + "\r\n",
    "rids": numbered(both(), "a=rid:{0} send max-width=1;max-height=2\r\n"),
    "simulcast": both() + "a=simulcast:send " + ";".join(map(str, range(11_000))) + "\r\n",
    "ssrcs": numbered(both(), "a=ssrc:{0} cname:x\r\n"),
    "groups": numbered(both(), "a=ssrc-group:FID {0} 1{0}\r\n"),
    "ssrc group": both() + "a=ssrc-group:SIM " + "1 " * 30_000 + "\r\n",
    "extmaps": numbered(both(), "a=extmap:{0} urn:x\r\n"),
    "feedback": numbered(both(), "a=rtcp-fb:* nack x{0}\r\n"),
    "rtpmaps": numbered(both(), "a=rtpmap:{0} VP8/90000\r\n"),
    "fingerprint": both() + "a=fingerprint:sha-256 " + "AB:" * 20_000 + "\r\n",
    "digits": both() + "a=ssrc:" + "9" * 60_000 + "\r\n",
    "blanks": both() + "a=group:" + " " * 60_000 + "\r\n",
    "line ends": both() + "\r\n" * 30_000,
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("lines", [2_000, 65_536])
def test_hostile_text_costs_little(name: str, lines: int) -> None:
    body = HOSTILE[name]
    assert len(body) <= 65536
    costs = []
    for _ in range(3):
        before = time.process_time()
        parse_offer(body, replace(LIMITS, sdp_lines=lines))
        costs.append(time.process_time() - before)
    assert min(costs) < 0.05


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_any_text_gives_a_value(body: str) -> None:
    assert isinstance(parse_offer(body, LIMITS), Offer | Refusal)


PIECES = sorted({line for name in NAMES for line in real(name).split("\r\n")})


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=40).map("a={}".format), max_size=60))
def test_any_lines_give_a_value(lines: list[str]) -> None:
    assert isinstance(parse_offer("\r\n".join(["v=0", *lines]), LIMITS), Offer | Refusal)


def mutated(seed: int) -> str:
    """A real offer with a few lines lost, doubled, moved or scrambled."""
    dice = random.Random(seed)
    lines = real(dice.choice(NAMES)).split("\r\n")
    for _ in range(dice.randint(1, 6)):
        here, there = dice.randrange(len(lines)), dice.randrange(len(lines))
        match dice.randrange(5):
            case 0:
                del lines[here]
            case 1:
                lines.insert(there, lines[here])
            case 2:
                lines[here], lines[there] = lines[there], lines[here]
            case 3:
                lines[here] = lines[here][: dice.randint(0, len(lines[here]))]
            case _:
                spot = dice.randint(0, len(lines[here]))
                lines[here] = lines[here][:spot] + dice.choice(":;/ =,0a\u00e4") + lines[here][spot:]
    return "\r\n".join(lines)


def test_mutated_real_offers_give_a_value() -> None:
    results = [parse_offer(mutated(seed), LIMITS) for seed in range(2_000)]
    assert {type(result) for result in results} == {Offer, Refusal}
