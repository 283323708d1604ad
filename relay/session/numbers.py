"""Names and numbers for things that control makes: ids, ICE credentials, SSRCs, track logs. Owns which are in use; must
never know what they are used for. Read `relay/session/opening.py` next, which uses them.
"""

from base64 import b64encode, urlsafe_b64encode
from collections import Counter, deque
from collections.abc import Callable, Iterable
from itertools import islice

from millrace.relay.contract.ids import ParticipantId, PublicationId, SessionId, Slot, SubscriptionId, TransportId

Random = Callable[[int], bytes]
"""Returns so many random bytes, from a source fit for secrets."""
IsForeign = Callable[[int], bool]
"""True when another slot writes this track log of ours, since its publication moved there. The arena knows it,
whichever worker dies.
"""


class Numbers:
    """The names and numbers of one worker. `random` is the only source of chance in the control plane."""

    def __init__(self, random: Random, slot: Slot, logs_per_slot: int, is_foreign: IsForeign = lambda _: False) -> None:
        self._random = random
        self._slot = slot
        self._is_foreign = is_foreign
        first = slot * logs_per_slot
        self._own_logs = range(first, first + logs_per_slot)
        # Released at one end and taken at the other, so that each log rests as long as possible: a reader that hears
        # late of a publication's end rarely finds another publication in its log.
        self._free_logs = deque(self._own_logs)
        self._ssrcs: Counter[int] = Counter()

    def transport(self) -> TransportId:
        """63 bits: positive in every language's integers."""
        return TransportId(self._id())

    def publication(self) -> PublicationId:
        """Unique on the whole box, since other workers refer to it."""
        return PublicationId(self._id())

    def subscription(self) -> SubscriptionId:
        """Names an outgoing stream; 63 bits."""
        return SubscriptionId(self._id())

    def sdp_session(self) -> int:
        """The id in the o= line (RFC 8866 section 5.2); 63 bits."""
        return self._id()

    def session(self) -> SessionId:
        """The slot and 128 random bits: without tokens whoever knows the id may end the session."""
        return SessionId(f"{self._slot:02x}.{_urlsafe(self._random(16))}")

    def participant(self) -> ParticipantId:
        """The identity of a client without a token."""
        return ParticipantId(f"guest-{_urlsafe(self._random(9))}")

    def etag(self) -> str:
        """A strong entity-tag, quotes included (RFC 9110 section 8.8.3)."""
        return f'"{_urlsafe(self._random(9))}"'

    def cname(self) -> str:
        """The CNAME of one viewer's streams: 96 random bits (RFC 7022 section 4.2)."""
        return _urlsafe(self._random(12))

    def ice_ufrag(self) -> str:
        """The slot, so that any worker knows the owner of a check, and 48 random bits; base64 letters are ice-chars."""
        return f"{self._slot:02x}{b64encode(self._random(6)).decode()}"

    def ice_pwd(self) -> str:
        """144 bits; RFC 8445 section 5.3 asks for 128."""
        return b64encode(self._random(18)).decode()

    def ssrc(self) -> int:
        """An SSRC that no other stream of this worker has."""
        while True:
            ssrc = int.from_bytes(self._random(4), "big")
            if ssrc and ssrc not in self._ssrcs:
                self._ssrcs[ssrc] += 1
                return ssrc

    def release_ssrcs(self, ssrcs: Iterable[int]) -> None:
        """The streams with these SSRCs have ended."""
        for ssrc in ssrcs:
            self._ssrcs[ssrc] -= 1
            if self._ssrcs[ssrc] <= 0:
                del self._ssrcs[ssrc]

    def claim(self, logs: Iterable[int], ssrcs: Iterable[int]) -> bool:
        """Marks an adopted session's logs and SSRCs as in use. False, and nothing is marked, when one of the logs is in
        use already. Logs of another slot, in which the session was opened, are that slot's to mark. An SSRC that
        another client has as well does no harm.
        """
        ours = {log for log in logs if log in self._own_logs}
        if not ours <= set(self._free_logs):
            return False
        if ours:
            self._free_logs = deque(log for log in self._free_logs if log not in ours)
        self._ssrcs.update(ssrcs)
        return True

    def has_logs(self, wanted: int) -> bool:
        """True when so many track logs are free."""
        free = (log for log in self._free_logs if not self._is_foreign(log))
        return sum(1 for _ in islice(free, wanted)) == wanted

    def log(self) -> int:
        """Takes the log that has been free longest. The caller has asked `has_logs` before; else it may raise
        IndexError.
        """
        for _ in range(len(self._free_logs)):
            log = self._free_logs.popleft()
            if not self._is_foreign(log):
                return log
            # Its publication moved to another slot, which still writes the log.
            self._free_logs.append(log)
        raise IndexError("no track log is free")

    def release_logs(self, logs: Iterable[int]) -> None:
        """The publications in these logs have ended or moved away. Logs of other slots are passed over."""
        self._free_logs.extend(log for log in logs if log in self._own_logs)

    def _id(self) -> int:
        # 0 names nothing.
        return (int.from_bytes(self._random(8), "big") >> 1) or 1


def _urlsafe(random: bytes) -> str:
    return urlsafe_b64encode(random).decode().rstrip("=")
