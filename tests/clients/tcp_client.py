"""A raw client that reaches the relay over TCP (RFC 6544) only: each datagram lies in a frame (RFC 4571). It must never
send a datagram. Read next: `tests/clients/raw_client.py`, for everything that goes through the frames.
"""

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from tests.clients.raw_client import WAIT_SECONDS, RawClient


@dataclass
class TcpClient(RawClient):
    """It connects with its first packet."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.socket.close()
        self._is_connected = False
        self._unread = b""

    def dial(self) -> "TcpClient":
        """Goes on over a new connection."""
        self.socket.close()
        self.socket = socket.create_connection(self.relay, timeout=WAIT_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._is_connected, self._unread = True, b""
        return self

    @property
    def relay(self) -> tuple[str, int]:
        """The passive candidate of our own host's address."""
        for line in self.answer.split("\r\n"):
            fields = line.split()
            if line.startswith("a=candidate:") and fields[2] == "tcp" and fields[4] == self.host:
                assert fields[6:] == ["typ", "host", "tcptype", "passive"]
                return fields[4], int(fields[5])
        raise AssertionError(f"no TCP candidate at {self.host}:\n{self.answer}")

    def send(self, datagram: bytes) -> None:
        """To the relay."""
        if not self._is_connected:
            self.dial()
        self.socket.settimeout(WAIT_SECONDS)
        self.socket.sendall(frame(datagram))

    def datagrams(self, seconds: float = WAIT_SECONDS) -> Iterator[bytes]:
        """As with UDP; ends when the relay closes the connection."""
        deadline = time.monotonic() + seconds
        while True:
            while (datagram := self._next_packet()) is not None:
                if self.answers_requests and (answer := self.answer_to(datagram)) is not None:
                    self.requests += 1
                    self.send(answer)
                else:
                    yield datagram
            if (left := deadline - time.monotonic()) <= 0:
                return
            self.socket.settimeout(left)
            try:
                read = self.socket.recv(65_536)
            except TimeoutError:
                return
            if not read:
                return
            self._unread += read

    def is_closed(self, seconds: float = WAIT_SECONDS) -> bool:
        """Whether the relay closes the connection within that time."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.socket.settimeout(left)
            with suppress(TimeoutError):
                try:
                    if not self.socket.recv(65_536):
                        return True
                except ConnectionResetError:
                    return True
        return False

    def _next_packet(self) -> bytes | None:
        length = int.from_bytes(self._unread[:2], "big")
        if len(self._unread) < 2 + length:
            return None
        packet, self._unread = self._unread[2 : 2 + length], self._unread[2 + length :]
        return packet


def frame(packet: bytes) -> bytes:
    """RFC 4571."""
    return len(packet).to_bytes(2, "big") + packet
