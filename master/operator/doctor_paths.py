"""By which of UDP, TCP and TURN a client reaches a running server: `millrace doctor --url`, asked where the client is.
Sends what a browser's ICE would send first. It must never send media. Read next: `master/operator/doctor_call.py`.
"""

import asyncio
import re
import secrets
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urljoin

from aioice import stun, turn

from millrace.master.operator.doctor import Finding, Verdict
from millrace.master.operator.doctor_call import token_for
from millrace.relay.config.model import Config

SECONDS = 3.0
"""For an answer: longer than any way to a server and back, three lost packets included."""
REPEATS = (0.0, 0.3, 0.8, 1.6)
"""When a check is sent over UDP: seconds since the first."""
PRIORITY = (110 << 24) + (65_535 << 8) + 255
"""What a peer-reflexive candidate of ours would have (RFC 8445 section 7.1.1)."""
_CANDIDATE = re.compile(r"a=candidate:\S+ 1 (?P<protocol>udp|tcp) \d+ (?P<address>\S+) (?P<port>\d+) typ host", re.I)
_LINK = re.compile(
    r"<(?P<scheme>turns?):(?P<host>\[[^\]]+\]|[^:?>]+)(?::(?P<port>\d+))?(?:\?transport=(?P<transport>udp|tcp))?>"
    r'; rel="ice-server"(?:; username="(?P<username>[^"]*)")?(?:; credential="(?P<credential>[^"]*)")?'
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client needs of an answer to check its ways."""

    ufrag: str
    pwd: str
    udp: tuple[tuple[str, int], ...]
    tcp: tuple[tuple[str, int], ...]
    turn: tuple[dict[str, str | None], ...]
    """The groups of `_LINK`."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One way that was tried."""

    where: str
    seconds: float | None
    """Until the answer came; None without one."""
    why: str = ""


def paths(url: str, config: Config) -> list[Finding]:
    """Asks a running server for an answer, and each way in it whether it leads there. Returns nothing when the server
    gives no answer: the call says why.
    """
    room = f"doctor-{secrets.token_hex(4)}"
    ours = secrets.token_hex(4)
    token = token_for(config, room)
    try:
        answer, session = _post(f"{url.rstrip('/')}/whep/{room}", token, _offer(ours))
    except (urllib.error.URLError, OSError):
        return []
    try:
        return asyncio.run(_findings(answer, ours))
    finally:
        _delete(session, token)


def parse_answer(sdp: str, links: str) -> Answer:
    """Returns what is needed of an answer and of its `Link` headers."""

    def attribute(name: str) -> str:
        return next(line for line in sdp.splitlines() if line.startswith(f"a={name}:")).partition(":")[2]

    found = [each.groupdict() for each in _CANDIDATE.finditer(sdp)]
    by_protocol = {
        protocol: tuple((each["address"], int(each["port"])) for each in found if each["protocol"].lower() == protocol)
        for protocol in ("udp", "tcp")
    }
    servers = tuple(each.groupdict() for each in _LINK.finditer(links))
    return Answer(attribute("ice-ufrag"), attribute("ice-pwd"), by_protocol["udp"], by_protocol["tcp"], servers)


def judge(tried: dict[str, Sequence[Tried]]) -> list[Finding]:
    """Returns one finding for each way. One that leads there is enough for a call."""
    works = {way: next((each for each in many if each.seconds is not None), None) for way, many in tried.items()}
    missing = {
        "UDP": "the server has no candidate",
        "TCP": "the server has no candidate: media.tcp is off, or its port was taken at the start",
        "TURN": "the server names none (ice.servers)",
    }
    findings = []
    for way, many in tried.items():
        answered = works[way]
        if answered is not None:
            text = f"{answered.where} answers after {1000 * (answered.seconds or 0):.0f} ms"
            findings.append(Finding(Verdict.GOOD, f"from here, {way}", text))
            continue
        verdict = Verdict.POOR if any(works.values()) else Verdict.BAD
        if not many:
            verdict, text = (Verdict.GOOD if any(works.values()) else Verdict.BAD), missing[way]
        else:
            text = "; ".join(f"{each.where}: {each.why or f'no answer within {SECONDS:.0f} s'}" for each in many)
        findings.append(Finding(verdict, f"from here, {way}", text))
    return findings


async def _findings(answer: Answer, ours: str) -> list[Finding]:
    check = _Check(answer, ours)
    ways: dict[str, list[Awaitable[Tried]]] = {
        "UDP": [_tried(f"{_text(each)}", lambda each=each: check.over_udp(each)) for each in answer.udp],  # type: ignore[misc]
        "TCP": [_tried(f"{_text(each)}", lambda each=each: check.over_tcp(each)) for each in answer.tcp],  # type: ignore[misc]
        "TURN": [
            _tried(_turn_text(each), lambda each=each: check.over_turn(each))  # type: ignore[misc]
            for each in answer.turn
        ],
    }
    done = await asyncio.gather(*(asyncio.gather(*each) for each in ways.values()))
    return judge(dict(zip(ways, done, strict=True)))


async def _tried(where: str, attempt: Callable[[], Awaitable[None]]) -> Tried:
    began = time.monotonic()
    try:
        async with asyncio.timeout(SECONDS):
            await attempt()
    except TimeoutError:
        return Tried(where, None)
    except (OSError, EOFError, stun.TransactionError, ssl.SSLError) as error:
        return Tried(where, None, str(error) or type(error).__name__)
    return Tried(where, time.monotonic() - began)


class _Check:
    """An ICE check, which only the server's session answers."""

    def __init__(self, answer: Answer, ours: str) -> None:
        self._answer = answer
        self._key = answer.pwd.encode()
        self._message = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
        self._message.attributes["USERNAME"] = f"{answer.ufrag}:{ours}"
        self._message.attributes["PRIORITY"] = PRIORITY
        self._message.attributes["ICE-CONTROLLING"] = secrets.randbits(64)
        self._message.add_message_integrity(self._key)
        self._packet = bytes(self._message)

    async def over_udp(self, remote: tuple[str, int]) -> None:
        loop = asyncio.get_running_loop()
        transport, receiver = await loop.create_datagram_endpoint(
            lambda: _Receiver(self._is_answer), remote_addr=remote
        )
        try:
            await self._repeat(lambda: transport.sendto(self._packet), receiver)
        finally:
            transport.close()

    async def over_tcp(self, remote: tuple[str, int]) -> None:
        reader, writer = await asyncio.open_connection(*remote)
        try:
            writer.write(len(self._packet).to_bytes(2, "big") + self._packet)
            while not self._is_answer(await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))):
                pass
        finally:
            writer.close()

    async def over_turn(self, server: dict[str, str | None]) -> None:
        """Through the server's relayed address to the first UDP candidate of IPv4, as coturn relays that by default."""
        remote = next((each for each in self._answer.udp if ip_address(each[0]).version == 4), None)
        if remote is None:
            raise OSError("there is no UDP candidate of IPv4 to relay to")
        is_tls = server["scheme"] == "turns"
        address = (str(server["host"]).strip("[]"), int(server["port"] or (5349 if is_tls else 3478)))
        transport, receiver = await turn.create_turn_endpoint(
            lambda: _Receiver(self._is_answer),
            server_addr=address,
            username=server["username"],
            password=server["credential"],
            ssl=is_tls,
            transport=server["transport"] or ("tcp" if is_tls else "udp"),
        )
        try:
            await self._repeat(lambda: transport.sendto(self._packet, remote), receiver)
        finally:
            transport.close()

    async def _repeat(self, send: Callable[[], Any], receiver: "_Receiver") -> None:
        began = time.monotonic()
        for at in REPEATS:
            await asyncio.wait({receiver.answered}, timeout=max(0.0, began + at - time.monotonic()))
            if receiver.answered.done():
                break
            send()
        await receiver.answered

    def _is_answer(self, packet: bytes) -> bool:
        try:
            found = stun.parse_message(packet)
        except ValueError:
            return False
        is_ours = found.transaction_id == self._message.transaction_id
        is_success = found.message_class is stun.Class.RESPONSE
        return is_ours and is_success and found.check_message_integrity(self._key)


class _Receiver(asyncio.DatagramProtocol):
    def __init__(self, is_answer: Callable[[bytes], bool]) -> None:
        self._is_answer = is_answer
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if not self.answered.done() and self._is_answer(data):
            self.answered.set_result(None)

    def error_received(self, exc: Exception) -> None:
        if not self.answered.done():
            self.answered.set_exception(exc)


def _offer(ufrag: str) -> bytes:
    fingerprint = ":".join(f"{each:02X}" for each in secrets.token_bytes(32))
    lines = (
        *("v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0", "a=group:BUNDLE 0", "m=video 9 UDP/TLS/RTP/SAVPF 96"),
        *("c=IN IP4 0.0.0.0", "a=mid:0", "a=recvonly", "a=rtcp-mux", "a=rtpmap:96 VP8/90000"),
        *(f"a=ice-ufrag:{ufrag}", f"a=ice-pwd:{secrets.token_hex(12)}", f"a=fingerprint:sha-256 {fingerprint}"),
        "a=setup:active",
    )
    return ("\r\n".join(lines) + "\r\n").encode()


def _post(url: str, token: str | None, offer: bytes) -> tuple[Answer, str]:
    request = urllib.request.Request(url, offer, {"Content-Type": "application/sdp", **_bearer(token)}, method="POST")
    with urllib.request.urlopen(request, timeout=10) as answer:
        links = ", ".join(answer.headers.get_all("Link") or ())
        return parse_answer(answer.read().decode(), links), urljoin(url, answer.headers.get("Location", ""))


def _delete(session: str, token: str | None) -> None:
    request = urllib.request.Request(session, headers=_bearer(token), method="DELETE")
    try:
        urllib.request.urlopen(request, timeout=10).close()
    except (urllib.error.URLError, OSError):
        # It ends by itself.
        return


def _bearer(token: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def _text(address: tuple[str, int]) -> str:
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


def _turn_text(server: dict[str, str | None]) -> str:
    port = f":{server['port']}" if server["port"] else ""
    transport = f"?transport={server['transport']}" if server["transport"] else ""
    return f"{server['scheme']}:{server['host']}{port}{transport}"
