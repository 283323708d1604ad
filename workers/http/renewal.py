"""Has the public side's certificate read anew when its files change, and says so. Each worker looks for itself, so no
connection ends for it. It must never end a worker: with files that cannot be used the old certificate goes on. Read
next: `master/start/https.py`, which loads the files.
"""

import logging

from millrace.relay.contract.boot import PublicTls

log = logging.getLogger("millrace.http")


class Renewal:
    """Looks at the files whenever it is told to."""

    def __init__(self, tls: PublicTls | None) -> None:
        self._tls = tls
        self._said = ""

    def look(self) -> None:
        """Costs two `stat` calls while nothing has changed."""
        if self._tls is None:
            return
        try:
            if self._tls.renew():
                log.info("the HTTPS certificate was renewed")
            self._said = ""
        except (OSError, ValueError) as error:
            # Said once: an absent file is found at each look.
            if self._said != str(error):
                self._said = str(error)
                log.warning("http.certificate, http.key: not read anew, and the old certificate stays: %s", error)
