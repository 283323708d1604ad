"""What clients are told of STUN and TURN servers: Link headers, with credentials that last for a while where the server
shares a secret with us. Pure; must never ask a server anything. Read `relay/whip/requests.py` next, which sends them.
"""

import base64
import hashlib
import hmac

from millrace.relay.config.model import IceConfig, IceServer
from millrace.relay.contract.ids import ParticipantId


def link_headers(config: IceConfig, participant: ParticipantId, now: float) -> tuple[tuple[str, str], ...]:
    """Returns Link headers that name the ICE servers, one for each URL (RFC 9725 section 4.6); `now` is Unix time."""
    headers = []
    for server in config.servers:
        username, credential = _credentials(server, participant, now + config.credential_seconds)
        for url in server.urls:
            link = f'<{url}>; rel="ice-server"'
            # A STUN server asks for none.
            if username and not url.startswith("stun"):
                link += f"; username={_quoted(username)}; credential={_quoted(credential)}"
                link += '; credential-type="password"'
            headers.append(("Link", link))
    return tuple(headers)


def _credentials(server: IceServer, participant: ParticipantId, until: float) -> tuple[str, str]:
    """A user name and a password: the configured ones, or those of the scheme that coturn calls `use-auth-secret`, with
    the time in the name and the name's keyed hash as the password (draft-uberti-behave-turn-rest-00 section 2.2).
    """
    if not server.secret:
        return server.username, server.credential
    # The server counts and limits by name, so each participant has one. It is no business of the server's who that is.
    name = hashlib.sha256(participant.encode()).hexdigest()[:16]
    username = f"{int(until)}:{name}"
    digest = hmac.digest(server.secret.encode(), username.encode(), hashlib.sha1)
    return username, base64.b64encode(digest).decode()


def _quoted(text: str) -> str:
    """A quoted-string (RFC 9110 section 5.6.4)."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
