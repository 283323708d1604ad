"""Names and numbers for things that control makes: ids, ICE credentials, SSRCs, track logs. Owns which are in use;
must never know what they are used for. Read `relay/session/opening.py` next, which takes them.
"""

from base64 import b64encode, urlsafe_b64encode
from collections import Counter, deque
from collections.abc import Callable, Iterable
from itertools import islice

from millrace.relay.contract.ids import ParticipantId, PublicationId, SessionId, Slot, SubscriptionId, TransportId

Random = Callable[[int], bytes]
"""So many random bytes, from a source fit for secrets."""
IsForeign = Callable[[int], bool]
"""Whether a track log of ours is in use by another slot, since its publication moved. The arena knows, whoever dies."""


class Numbers:
    """One worker's names. `random` is the only source of chance in the control plane."""

    def __init__(self, random: Random, slot: Slot, logs_per_slot: int, is_foreign: IsForeign = lambda _: False) -> None:
        self._random = random
        self._slot = slot
        self._is_foreign = is_foreign
        first = slot * logs_per_slot
        self._own_logs = range(first, first + logs_per_slot)
        # Given back at one end and taken at the other: a log rests as long as it can, so that a reader that is late to
        # hear that its publication is gone rarely finds a new one in its place.
        self._free_logs = deque(self._own_logs)
        self._ssrcs: Counter[int] = Counter()

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
                self._ssrcs[ssrc] += 1
                return ssrc

    def release_ssrcs(self, ssrcs: Iterable[int]) -> None:
        """Their streams have ended."""
        for ssrc in ssrcs:
            self._ssrcs[ssrc] -= 1
            if self._ssrcs[ssrc] <= 0:
                del self._ssrcs[ssrc]

    def claim(self, logs: Iterable[int], ssrcs: Iterable[int]) -> bool:
        """Marks an adopted session's as in use; False, and nothing is marked, when they cannot be. Another slot's logs,
        where the session was opened, are not ours to give; an SSRC that another client has as well does no harm.
        """
        ours = {log for log in logs if log in self._own_logs}
        if not ours <= set(self._free_logs):
            return False
        if ours:
            self._free_logs = deque(log for log in self._free_logs if log not in ours)
        self._ssrcs.update(ssrcs)
        return True

    def has_logs(self, wanted: int) -> bool:
        """Whether so many track logs are left."""
        free = (log for log in self._free_logs if not self._is_foreign(log))
        return sum(1 for _ in islice(free, wanted)) == wanted

    def log(self) -> int:
        """The log that has been free longest; the caller has looked at `has_logs`."""
        for _ in range(len(self._free_logs)):
            log = self._free_logs.popleft()
            if not self._is_foreign(log):
                return log
            # Its publication moved away and lives.
            self._free_logs.append(log)
        raise IndexError("no track log is free")

    def release_logs(self, logs: Iterable[int]) -> None:
        """Their publications have ended, or moved away."""
        self._free_logs.extend(log for log in logs if log in self._own_logs)

    def _id(self) -> int:
        # 0 never names anything.
        return (int.from_bytes(self._random(8), "big") >> 1) or 1


def _urlsafe(random: bytes) -> str:
    return urlsafe_b64encode(random).decode().rstrip("=")
