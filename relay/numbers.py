"""Names and numbers for things that control makes: ids, ICE credentials, SSRCs, track logs. Owns which are in use; must
never know what they are used for. Read `relay/opening.py` next, which takes them.
"""

from base64 import b64encode, urlsafe_b64encode
from collections import deque
from collections.abc import Callable, Iterable

from relay.ids import ParticipantId, PublicationId, SessionId, Slot, SubscriptionId, TransportId

Random = Callable[[int], bytes]
"""So many random bytes, from a source fit for secrets."""


class Numbers:
    """One worker's names. `random` is the only source of chance in the control plane."""

    def __init__(self, random: Random, slot: Slot, logs_per_slot: int) -> None:
        self._random = random
        self._slot = slot
        first = slot * logs_per_slot
        # Given back at one end and taken at the other: a log rests as long as it can, so that a reader that is late to
        # hear that its publication is gone rarely finds a new one in its place.
        self._free_logs = deque(range(first, first + logs_per_slot))
        self._ssrcs: set[int] = set()

    def transport(self) -> TransportId:
        """63 bits: positive in every language's integers."""
        return TransportId(self._id())

    def publication(self) -> PublicationId:
        """Unique on the whole box, since other workers refer to it."""
        return PublicationId(self._id())

    def subscription(self) -> SubscriptionId:
        """As the others."""
        return SubscriptionId(self._id())

    def sdp_session(self) -> int:
        """The o= line's id (RFC 8866 section 5.2)."""
        return self._id()

    def session(self) -> SessionId:
        """128 random bits: whoever knows it may end the session when the server is open."""
        return SessionId(f"{self._slot:02x}.{_urlsafe(self._random(16))}")

    def participant(self) -> ParticipantId:
        """For a client that brought no token."""
        return ParticipantId(f"guest-{_urlsafe(self._random(9))}")

    def etag(self) -> str:
        """A strong entity-tag, quotes included (RFC 9110 section 8.8.3)."""
        return f'"{_urlsafe(self._random(9))}"'

    def cname(self) -> str:
        """96 random bits (RFC 7022 section 4.2)."""
        return _urlsafe(self._random(12))

    def ice_ufrag(self) -> str:
        """The slot, so that any worker knows the owner of a check, and 48 random bits; base64 letters are ice-chars."""
        return f"{self._slot:02x}{b64encode(self._random(6)).decode()}"

    def ice_pwd(self) -> str:
        """144 bits; RFC 8445 section 5.3 asks for 128."""
        return b64encode(self._random(18)).decode()

    def ssrc(self) -> int:
        """Of no other stream that this worker sends."""
        while True:
            ssrc = int.from_bytes(self._random(4), "big")
            if ssrc and ssrc not in self._ssrcs:
                self._ssrcs.add(ssrc)
                return ssrc

    def release_ssrcs(self, ssrcs: Iterable[int]) -> None:
        """Their streams have ended."""
        self._ssrcs.difference_update(ssrcs)

    def claim(self, logs: Iterable[int], ssrcs: Iterable[int]) -> bool:
        """Marks an adopted session's as in use; False, and nothing is marked, when they cannot be."""
        logs, ssrcs = set(logs), set(ssrcs)
        if not logs <= set(self._free_logs) or ssrcs & self._ssrcs:
            return False
        if logs:
            self._free_logs = deque(log for log in self._free_logs if log not in logs)
        self._ssrcs |= ssrcs
        return True

    @property
    def free_logs(self) -> int:
        """How many track logs are left."""
        return len(self._free_logs)

    def log(self) -> int:
        """The log that has been free longest; the caller has looked at `free_logs`."""
        return self._free_logs.popleft()

    def release_logs(self, logs: Iterable[int]) -> None:
        """Their publications have ended."""
        self._free_logs.extend(logs)

    def _id(self) -> int:
        # 0 never names anything.
        return (int.from_bytes(self._random(8), "big") >> 1) or 1


def _urlsafe(random: bytes) -> str:
    return urlsafe_b64encode(random).decode().rstrip("=")
