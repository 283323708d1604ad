"""Who makes room when a worker has as many sessions as it may: a session whose client does not connect, of the identity
or the source address that has most of these. Owns the rule; must never end a session that is connected. Read next:
`relay/whip/requests.py`, which asks when there is no room, and only then.
"""

from collections import Counter
from collections.abc import Iterable
from ipaddress import ip_address, ip_network

from millrace.relay.session.sessions import Session

PATIENCE_SECONDS = 2.0
"""So long a client has for ICE and DTLS before its session may make room for another: several round trips."""
IPV6_PREFIX = 64
"""One subscriber has at least as much (RFC 6177), and so any address of it."""


def source_of(address: str) -> str:
    """What counts as one source: an IPv4 address, or the /64 of an IPv6 address. Empty for what is no address."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return ""
    if parsed.version == 4:
        return str(parsed)
    mapped = parsed.ipv4_mapped
    return str(mapped or ip_network((int(parsed), IPV6_PREFIX), strict=False))


def makes_room(newcomer: Session, sessions: Iterable[Session], now: float) -> Session | bool:
    """Returns which session is to end for the newcomer, as the oldest of the largest share that does not connect. False
    when there is none; True when the newcomer's own share is the largest, so that it has to wait. `sessions` are the
    oldest first, `now` is Unix time.
    """
    waiting = [one for one in sessions if not one.connected and one.leaving is None]
    identities = Counter(one.participant for one in waiting)
    sources = Counter(one.source for one in waiting if one.source)
    largest_identity = max(identities.values(), default=0)
    largest_source = max(sources.values(), default=0)
    is_largest_identity = identities[newcomer.participant] >= largest_identity
    is_largest_source = sources[newcomer.source] >= largest_source
    if waiting and is_largest_identity and is_largest_source:
        return True
    # Identities first, as many clients may share an address: those of a school, or of a proxy that is not named.
    by_identity = not is_largest_identity and (is_largest_source or largest_identity >= largest_source)
    for one in waiting:
        count, most = (
            (identities[one.participant], largest_identity) if by_identity else (sources[one.source], largest_source)
        )
        if count == most and now - one.opened_at >= PATIENCE_SECONDS:
            return one
    return False
