"""One client made of bytes: it can do everything right, and any one thing wrong on purpose. It knows STUN, DTLS and
SRTP from the libraries that aiortc uses, and must never know how the relay works. Read next:
`tests/system/test_failures.py`.
"""

import hashlib
import hmac
import json
import os
import socket
import struct
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from aiortc.rtcdtlstransport import RTCCertificate
from OpenSSL import SSL
from pylibsrtp import Policy, Session

MAGIC = 0x2112A442
REQUEST, SUCCESS = 0x0001, 0x0101
RTP_KEY_BYTES, RTP_SALT_BYTES = 16, 14
WAIT_SECONDS = 10.0
"""For what comes at once, on a machine that may stand still. Who expects nothing says for how long."""
AUDIO_LEVEL = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"
MID = "urn:ietf:params:rtp-hdrext:sdes:mid"
ABS_CAPTURE_TIME = "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time"
PLAYOUT_DELAY = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay"
VIDEO_ORIENTATION = "urn:3gpp:video-orientation"
DEPENDENCY_DESCRIPTOR = "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
VIDEO_EXTENSIONS = {
    3: MID,
    4: ABS_CAPTURE_TIME,
    5: PLAYOUT_DELAY,
    6: VIDEO_ORIENTATION,
    7: DEPENDENCY_DESCRIPTOR,
}


@dataclass(frozen=True, slots=True)
class Answered:
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: str

    @property
    def reason(self) -> str:
        """The last word of a problem's type."""
        return str(json.loads(self.body)["type"]).rpartition(":")[2]


def request(method: str, url: str, body: str | None = None, headers: Mapping[str, str] | None = None) -> Answered:
    """One HTTP request on a connection of its own. Redirects are answers too."""
    asked = urllib.request.Request(url, None if body is None else body.encode(), dict(headers or {}), method=method)
    opener = urllib.request.build_opener(_NoRedirect)
    try:
        with opener.open(asked, timeout=10) as answer:
            return Answered(answer.status, dict(answer.headers.items()), answer.read().decode())
    except urllib.error.HTTPError as error:
        return Answered(error.code, dict(error.headers.items()), error.read().decode())


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


@dataclass
class RawClient:
    """One session with one video m-line. Each step is a method, so that a test may leave one out or spoil it."""

    url: str
    """`.../whip/{room}` or `.../whep/{room}`."""
    host: str = "127.0.0.1"
    promised: str | None = None
    """A fingerprint to offer instead of our certificate's."""
    extensions: Mapping[int, str] = field(default_factory=lambda: VIDEO_EXTENSIONS)
    codec: str = "VP8/90000"
    format_parameters: str = ""
    """Of its fmtp line, which there is none of without."""
    ssrc: int = 0x11223344
    srtp_profiles: bytes = b"SRTP_AES128_CM_SHA1_80"
    """As OpenSSL names them."""
    token: str | None = None
    ufrag: str = field(default_factory=lambda: os.urandom(4).hex())
    pwd: str = field(default_factory=lambda: os.urandom(12).hex())

    def __post_init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((self.host, 0))
        self.certificate = RTCCertificate.generateCertificate()
        self.answer = ""
        self.session_url = ""
        self.etag = ""
        self.sending: Session | None = None
        self.receiving: Session | None = None
        self.sequence = 1000
        self.answers_requests = True
        self.requests = 0
        """Of the relay, that were answered."""

    def __enter__(self) -> "RawClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    @property
    def publishes(self) -> bool:
        """WHIP, not WHEP."""
        return "/whip/" in self.url

    @property
    def bearer(self) -> dict[str, str]:
        """The header that admits it."""
        return {} if self.token is None else {"Authorization": f"Bearer {self.token}"}

    @property
    def session(self) -> str:
        """The session's id."""
        return self.session_url.rpartition("/")[2]

    def offer(self) -> str:
        """With VP8 (or `codec`) as payload type 96."""
        (fingerprint,) = [one for one in self.certificate.getFingerprints() if one.algorithm == "sha-256"]
        lines = [
            "v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=group:BUNDLE 0", "a=extmap-allow-mixed",
            "m=video 9 UDP/TLS/RTP/SAVPF 96", "c=IN IP4 0.0.0.0", "a=mid:0", "a=rtcp-mux",
            f"a=rtpmap:96 {self.codec}", *([f"a=fmtp:96 {self.format_parameters}"] if self.format_parameters else []),
            "a=rtcp-fb:96 nack", "a=rtcp-fb:96 nack pli",
            *(f"a=extmap:{number} {uri}" for number, uri in self.extensions.items()),
            f"a=ice-ufrag:{self.ufrag}", f"a=ice-pwd:{self.pwd}",
            f"a=fingerprint:sha-256 {self.promised or fingerprint.value}", "a=setup:active",
        ]  # fmt: skip
        if self.publishes:
            lines += ["a=sendonly", f"a=ssrc:{self.ssrc} cname:raw"]
        else:
            lines += ["a=recvonly"]
        return "\r\n".join(lines) + "\r\n"

    def post(self, slot: int | None = None) -> "RawClient":
        """POST, until the worker of that slot happens to take it."""
        for _ in range(100):
            answered = request("POST", self.url, self.offer(), {"Content-Type": "application/sdp", **self.bearer})
            assert answered.status == 201, answered
            origin = "/".join(self.url.split("/")[:3])
            self.session_url, self.etag = origin + answered.headers["Location"], answered.headers["ETag"]
            self.answer = answered.body
            if slot is None or int(self.session[:2], 16) == slot:
                return self
            request("DELETE", self.session_url, headers=self.bearer)
        raise AssertionError(f"no POST went to worker {slot}")

    def attribute(self, name: str) -> str:
        """The first of that name in the answer."""
        return next(line for line in self.answer.split("\r\n") if line.startswith(f"a={name}:")).partition(":")[2]

    def answered_extensions(self) -> dict[int, str]:
        """URI by id."""
        lines = [line for line in self.answer.split("\r\n") if line.startswith("a=extmap:")]
        return {int(line[9:].split()[0]): line.split()[1] for line in lines}

    @property
    def relay(self) -> tuple[str, int]:
        """The candidate of our own host's address."""
        for line in self.answer.split("\r\n"):
            if line.startswith("a=candidate:"):
                fields = line.split()
                if fields[4] == self.host:
                    return fields[4], int(fields[5])
        raise AssertionError(f"no candidate at {self.host}:\n{self.answer}")

    # --- ICE

    def stun(self, pwd: str | None = None, ufrag: str | None = None, nominates: bool = True) -> bytes:
        """A binding request (RFC 8489, RFC 8445 section 7.1)."""
        username = f"{ufrag or self.attribute('ice-ufrag')}:{self.ufrag}".encode()
        attributes = _attribute(0x0006, username) + _attribute(0x0024, struct.pack("!I", 0x6E7F1EFF))
        attributes += _attribute(0x802A, os.urandom(8))
        if nominates:
            attributes += _attribute(0x0025, b"")
        transaction = os.urandom(12)
        key = (pwd or self.attribute("ice-pwd")).encode()
        signed = _header(len(attributes) + 24, transaction) + attributes
        attributes += _attribute(0x0008, hmac.new(key, signed, hashlib.sha1).digest())
        crc = zlib.crc32(_header(len(attributes) + 8, transaction) + attributes) ^ 0x5354554E
        return _header(len(attributes) + 8, transaction) + attributes + _attribute(0x8028, struct.pack("!I", crc))

    def check(self, seconds: float = WAIT_SECONDS, **spoiled: str) -> bool:
        """One check; whether a success response came."""
        self.send(self.stun(**spoiled))  # type: ignore[arg-type]
        return any(datagram[:2] == b"\x01\x01" for datagram in self.until(lambda one: one[:2] == b"\x01\x01", seconds))

    def move(self) -> None:
        """Goes on at another port, as behind a NAT that forgot the old one, until the relay has asked it back."""
        self.socket.close()
        self.socket = socket.socket(self.socket.family, socket.SOCK_DGRAM)
        self.socket.bind((self.host, 0))
        before = self.requests
        assert self.check()
        deadline = time.monotonic() + WAIT_SECONDS
        while self.requests == before:
            assert time.monotonic() < deadline
            self.until(lambda _: True, 0.02)

    def is_answered(self, times: int = 10) -> bool:
        """Checks once a second, as clients do that hear nothing; whether one was answered."""
        return any(self.check(1.0) for _ in range(times))

    def answer_to(self, asked: bytes, mapped: tuple[str, int] | None = None) -> bytes | None:
        """Our success response to a binding request of the relay's; None when it is not signed with our password.

        It names `mapped`, or else the relay's candidate, as where the request came from.
        """
        signed_at = asked.find(struct.pack("!HH", 0x0008, 20))
        if asked[:2] != b"\x00\x01" or signed_at < 0:
            return None
        transaction = asked[8:20]
        before = _header(signed_at + 4, transaction) + asked[20:signed_at]
        key = self.pwd.encode()
        if hmac.new(key, before, hashlib.sha1).digest() != asked[signed_at + 4 : signed_at + 24]:
            return None
        host, port = mapped or self.relay
        mask = struct.pack("!I", MAGIC) + transaction
        family, packed = (2, socket.AF_INET6) if ":" in host else (1, socket.AF_INET)
        address = bytes(a ^ b for a, b in zip(socket.inet_pton(packed, host), mask, strict=False))
        attributes = _attribute(0x0020, struct.pack("!BBH", 0, family, port ^ (MAGIC >> 16)) + address)
        signed = _header(len(attributes) + 24, transaction, SUCCESS) + attributes
        attributes += _attribute(0x0008, hmac.new(key, signed, hashlib.sha1).digest())
        crc = zlib.crc32(_header(len(attributes) + 8, transaction, SUCCESS) + attributes) ^ 0x5354554E
        attributes += _attribute(0x8028, struct.pack("!I", crc))
        return _header(len(attributes), transaction, SUCCESS) + attributes

    # --- DTLS

    def handshake(self, seconds: float = WAIT_SECONDS) -> bool:
        """As the DTLS client; whether it finished. Keys are ready then."""
        self.connection = self.dtls()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                self.connection.do_handshake()
            except SSL.WantReadError:
                self._flush()
            except SSL.Error:
                self._flush()
                return False
            else:
                self._flush()
                self._derive()
                return True
            for datagram in self.datagrams(0.2):
                if 20 <= datagram[0] < 64:
                    self.connection.bio_write(datagram)
                    break
        return False

    def dtls(self) -> SSL.Connection:
        """A client without a datagram sent yet."""
        context = SSL.Context(SSL.DTLS_METHOD)
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
        context.use_certificate(self.certificate._cert)
        context.use_privatekey(self.certificate._key)
        context.set_cipher_list(b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384")
        if self.srtp_profiles:
            context.set_tlsext_use_srtp(self.srtp_profiles)
        connection = SSL.Connection(context)
        connection.set_connect_state()
        connection.set_ciphertext_mtu(1200)
        return connection

    def say_hello(self) -> None:
        """ClientHello, and nothing after it."""
        self.connection = self.dtls()
        with suppress(SSL.WantReadError):
            self.connection.do_handshake()
        self._flush()

    def say_goodbye(self) -> None:
        """close_notify."""
        self.connection.shutdown()
        self._flush()

    def connect(self) -> "RawClient":
        """Everything as it should be."""
        assert self.check()
        assert self.handshake()
        return self

    def _flush(self) -> None:
        while True:
            try:
                datagram = self.connection.bio_read(1500)
            except SSL.WantReadError:
                return
            self.send(datagram)

    def _derive(self) -> None:
        """RFC 5764 section 4.2."""
        keys = self.connection.export_keying_material(b"EXTRACTOR-dtls_srtp", 2 * (RTP_KEY_BYTES + RTP_SALT_BYTES))
        ours, theirs = keys[:16] + keys[32:46], keys[16:32] + keys[46:60]
        profile = Policy.SRTP_PROFILE_AES128_CM_SHA1_80
        self.sending = Session(Policy(key=ours, ssrc_type=Policy.SSRC_ANY_OUTBOUND, srtp_profile=profile))
        theirs_policy = Policy(key=theirs, ssrc_type=Policy.SSRC_ANY_INBOUND, srtp_profile=profile)
        # Packets: a repair under the stream's own number may be late.
        theirs_policy.window_size = 4096
        self.receiving = Session(theirs_policy)

    # --- media

    def packet(self, payload: bytes, extensions: Mapping[int, bytes] | None = None, ssrc: int | None = None) -> bytes:
        """The next RTP packet, sealed."""
        assert self.sending is not None
        return bytes(self.sending.protect(self.plain_packet(payload, extensions, ssrc)))

    def frame(self, payloads: Sequence[bytes], timestamp: int) -> list[bytes]:
        """The next packets, sealed, of one frame."""
        assert self.sending is not None
        packets = []
        for at, payload in enumerate(payloads):
            plain = bytearray(self.plain_packet(payload))
            plain[1] = 96 | (0x80 if at == len(payloads) - 1 else 0)
            plain[4:8] = struct.pack("!I", timestamp)
            packets.append(bytes(self.sending.protect(bytes(plain))))
        return packets

    def plain_packet(
        self, payload: bytes, extensions: Mapping[int, bytes] | None = None, ssrc: int | None = None
    ) -> bytes:
        """The same, not sealed. One frame in each packet."""
        self.sequence = (self.sequence + 1) & 0xFFFF
        block = b""
        if extensions:
            body = b"".join(bytes([number << 4 | len(value) - 1]) + value for number, value in extensions.items())
            body += bytes(-len(body) % 4)
            block = struct.pack("!HH", 0xBEDE, len(body) // 4) + body
        first = 0x90 if block else 0x80
        stream = self.ssrc if ssrc is None else ssrc
        return struct.pack("!BBHII", first, 0x80 | 96, self.sequence, self.sequence * 3000, stream) + block + payload

    def rtcp(self, packet: bytes) -> None:
        """Sends RTCP, sealed."""
        assert self.sending is not None
        self.send(self.sending.protect_rtcp(packet))

    def media(self, seconds: float = WAIT_SECONDS) -> Iterator[bytes]:
        """RTP packets that come, opened; RTCP is passed over, and ICE goes on."""
        assert self.receiving is not None
        for datagram in self.datagrams(seconds):
            if 128 <= datagram[0] < 192 and not 192 <= datagram[1] < 224:
                yield bytes(self.receiving.unprotect(datagram))

    # --- datagrams

    def send(self, datagram: bytes) -> None:
        """To the relay."""
        self.socket.sendto(datagram, self.relay)

    def datagrams(self, seconds: float = WAIT_SECONDS) -> Iterator[bytes]:
        """What comes until then, but for the relay's requests, which are answered as every client does."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                datagram = self.socket.recv(2048)
            except TimeoutError:
                return
            if self.answers_requests and (answer := self.answer_to(datagram)) is not None:
                self.requests += 1
                self.send(answer)
            else:
                yield datagram

    def until(self, is_it, seconds: float = WAIT_SECONDS) -> list[bytes]:  # type: ignore[no-untyped-def]
        """What comes, up to the first that is it."""
        found = []
        for datagram in self.datagrams(seconds):
            found.append(datagram)
            if is_it(datagram):
                break
        return found


def key_frame(number: int = 0) -> bytes:
    """A VP8 payload that begins a key frame: descriptor (RFC 7741 section 4.2), then the frame's tag."""
    return bytes([0x90, 0x80, number & 0x7F]) + b"\x50\x42\x00\x9d\x01\x2a\x40\x01\xf0\x00" + bytes(50)


def later_frame(number: int) -> bytes:
    """One that is no key frame."""
    return bytes([0x90, 0x80, number & 0x7F]) + b"\x51\x42\x00" + bytes(50)


def until_flows(publisher: RawClient, viewer: RawClient, seconds: float = 20.0) -> int:
    """Sends key frames until the last one comes out, so that nothing is under way; says how many that took.

    What is sent before the viewer's subscription stands may be missed.
    """
    deadline = time.monotonic() + seconds
    sent = 0
    while time.monotonic() < deadline:
        sent += 1
        mark = b"begin" + sent.to_bytes(4, "big")
        publisher.send(publisher.packet(key_frame(sent) + mark))
        if any(packet.endswith(mark) for packet in viewer.media(0.2 * sent)):
            return sent
    raise AssertionError(f"none of {sent} key frames came")


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)


def _header(length: int, transaction: bytes, kind: int = REQUEST) -> bytes:
    return struct.pack("!HHI", kind, length, MAGIC) + transaction
