"""Says which requests of clients were refused and why: counts each, and writes a line for each up to a bound. It must
never log a token, an address or a whole session's id. Read next: `workers/http/answers.py`, which knows the reasons.
"""

import logging
from collections.abc import Callable

from aiohttp import web

from millrace.relay.contract.protocol import Protocol
from millrace.workers.http.answers import Answer

log = logging.getLogger("millrace.http")

LINES_A_SECOND = 10
"""Of each worker; refusals past it are counted, and their number is said. A person reads no more, and a flood must not
fill the disk.
"""
MAX_ROOM = 256
"""Characters of a room's name that a line shows: no room has a longer one."""
PATHS = frozenset({*map(str, Protocol), "rooms"})
"""The first parts of paths whose refusals have a line."""
Count = Callable[[int, str], None]


class Refusals:
    """Is told of each refused request, and once a second that time goes by."""

    def __init__(self, count: Count, public_path: str = "") -> None:
        self._count = count
        self._public_path = public_path
        self._lines = 0
        self._left_out = 0

    def refused(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Counts a request that was answered with 400 or more, and logs it."""
        reason = (response.problem if isinstance(response, Answer) else None) or "other"
        self._count(response.status, reason)
        protocol, _, rest = request.rel_url.path.removeprefix(self._public_path).removeprefix("/").partition("/")
        if protocol not in PATHS:
            # Somebody who looks for other programs' pages is nobody's client.
            return
        if self._lines >= LINES_A_SECOND:
            self._left_out += 1
            return
        self._lines += 1
        room = {"room": rest.partition("/")[0][:MAX_ROOM]} if rest else {}
        log.info("request refused", extra={"protocol": protocol, **room, "status": response.status, "reason": reason})

    def tick(self) -> None:
        """Lets lines be written again, and says how many were left out."""
        if self._left_out:
            log.info("more requests were refused", extra={"without_a_line": self._left_out})
        self._lines = self._left_out = 0
