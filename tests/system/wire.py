"""What really was on a wire, with the kernel's times: browsers measure at 50 ms and when they get a core. It must
never know a test. Needs root. Read next: `tests/browser/test_rooms.py`.
"""

import itertools
import socket
import struct
import time
from types import TracebackType

ETH_P_ALL = 3
SO_RCVBUFFORCE = 33
SO_TIMESTAMPNS = 35
"""Linux's numbers; Python has no names for them."""
PACKET_HOST = 0
UDP = 17


class Wire:
    """Collects the media of one port while the block runs."""

    def __init__(self, interface: str, port: int) -> None:
        self._port = port
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 * 1024 * 1024)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._socket.bind((interface, ETH_P_ALL))
        self.arrived: list[float] = []
        """Milliseconds, of each RTP packet to the port."""
        self.left: list[float] = []
        """Likewise from the port."""

    def __enter__(self) -> "Wire":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        end = time.time() * 1000
        with self._socket:
            self._socket.setblocking(False)
            try:
                while True:
                    self._take(end)
            except BlockingIOError:
                pass

    def longest_silences(self) -> tuple[float, float]:
        """Milliseconds in which no RTP packet came to the port, and in which none left it."""
        arrived, left = (max(b - a for a, b in itertools.pairwise(times)) for times in (self.arrived, self.left))
        return arrived, left

    def longest_stay(self) -> float:
        """Milliseconds from a packet's arrival to the next one that left: how long the relay itself slept."""
        stays = []
        leaving = iter(self.left)
        leaves = next(leaving, None)
        for arrives in self.arrived:
            while leaves is not None and leaves < arrives:
                leaves = next(leaving, None)
            if leaves is None:
                break
            stays.append(leaves - arrives)
        return max(stays)

    def _take(self, end: float) -> None:
        packet, ancillary, _, address = self._socket.recvmsg(2048, 64)
        # Each packet is seen on its way out and on its way in.
        if address[2] != PACKET_HOST:
            return
        version = packet[0] >> 4
        protocol, start = (packet[9], (packet[0] & 15) * 4) if version == 4 else (packet[6], 40)
        if protocol != UDP:
            return
        source, destination = struct.unpack_from("!HH", packet, start)
        payload = packet[start + 8 :]
        # RFC 5761 section 4: payload types 64 to 95 would be RTCP.
        if len(payload) < 12 or payload[0] >> 6 != 2 or 64 <= payload[1] & 127 < 96:
            return
        seconds, nanoseconds = struct.unpack("ll", ancillary[0][2][:16])
        at = seconds * 1000 + nanoseconds / 1e6
        # The kernel begins to stamp a little after it was asked to; a packet without a stamp gets this call's time.
        if at > end:
            return
        if source == self._port:
            self.left.append(at)
        elif destination == self._port:
            self.arrived.append(at)
