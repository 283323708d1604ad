"""Which web pages may use a server, by the `Origin` and `Host` that browsers send. Owns CORS, and the guard of
addresses that ask for no token: a browser on this machine reaches its loopback for any page in the world. It must never
know a route. Read next: `workers/http/server.py`, which asks for each request.

Both fields are read strictly, as browsers write them: a lenient reader of URLs finds this machine in
`http://evil.example\\@127.0.0.1`. What is not written so is of no machine that is known here.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from aiohttp import web

from millrace.workers.http.answers import problem

EXPOSED = "Location, ETag, Link, Retry-After, Accept-Post, Accept-Patch, WWW-Authenticate"
"""Response headers that a script of another origin needs: RFC 9725 sections 4.2, 4.3, 4.5 and 4.6."""

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(:(?P<port>[0-9]{1,5}))?")
"""RFC 9110 section 7.2, without what no browser sends: a user, escapes, an empty port, a zone."""
_ORIGIN = re.compile(r"(?P<scheme>https?)://(?P<host>[^A-Z]+)")
"""RFC 6454 section 6.2, of pages that a server sent."""
_ABSOLUTE = re.compile(r"https?://([^/?#]*)", re.IGNORECASE)
"""A request's target in absolute form (RFC 9112 section 3.2.2)."""


@dataclass(frozen=True, slots=True)
class _Host:
    """A host as `Host` and `Origin` name it."""

    name: str
    """In lower case, without the brackets of an IPv6 address."""
    port: str | None

    @property
    def address(self) -> IPv4Address | IPv6Address | None:
        try:
            return ip_address(self.name)
        except ValueError:
            return None

    @property
    def is_this_machine(self) -> bool:
        address = self.address
        return self.name == "localhost" if address is None else address.is_loopback


def named_host(target: str, field: str | None) -> str | None:
    """Returns the host that a request names: by its target, when that is a whole URL, else by its `Host`."""
    absolute = _ABSOLUTE.match(target)
    return absolute[1] if absolute is not None else field


class Cors:
    """Which other origins may read our answers. Where no token is asked for, `*` is this machine's pages only."""

    def __init__(self, origins: Collection[str], is_open: bool) -> None:
        self._origins = frozenset(origins)
        self._any = "*" in origins and not is_open
        self._this_machine = "*" in origins and is_open

    def headers(self, origin: str | None) -> dict[str, str]:
        """Returns the headers of any answer to a request with this `Origin`."""
        if origin is None:
            return {}
        if self._any:
            return {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": EXPOSED}
        # A cache must not give one origin's answer to another.
        if not self._allows(origin):
            return {"Vary": "Origin"}
        return {"Vary": "Origin", "Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": EXPOSED}

    def preflight(self, origin: str | None, methods: str) -> dict[str, str]:
        """Returns the headers of the answer to OPTIONS."""
        headers = self.headers(origin)
        if "Access-Control-Allow-Origin" in headers:
            headers["Access-Control-Allow-Methods"] = methods
            headers["Access-Control-Allow-Headers"] = "Authorization, Content-Type, If-Match"
            headers["Access-Control-Max-Age"] = "86400"
        return headers

    def _allows(self, origin: str) -> bool:
        if origin in self._origins:
            return True
        page = _page(origin)
        return self._this_machine and page is not None and page.is_this_machine


class Guard:
    """Refuses requests of other sites' pages. Programs that are no browsers send no `Origin`, and call us by our
    address.
    """

    def __init__(self, origins: Collection[str], checks_host: bool) -> None:
        self._origins = frozenset(origins)
        self._names = {page.name for page in map(_page, origins) if page is not None}
        self._checks_host = checks_host

    def refusal(self, host: str | None, origin: str | None) -> web.Response | None:
        """Returns the refusal of a request with these headers; None when it may go on."""
        # After DNS rebinding, another site's name leads here. Its pages have our origin then, but their Host shows it.
        if self._checks_host and host is not None and not self._knows(host):
            return problem(421, "other-host", "This address serves this machine only: call it by its IP address.")
        if origin is not None and not self._trusts(origin, host):
            return problem(403, "other-origin", "A page of another site may not use an address that asks for no token.")
        return None

    def is_other_site(self, host: str | None, origin: str | None) -> bool:
        """True when a page of another site sent the request. A page with our own name and HTTPS is ours: a name that
        was rebound has no certificate for us to show.
        """
        if origin is None or self._trusts(origin, host):
            return False
        page = _page(origin)
        return page is None or not origin.startswith("https:") or page != _host(host)

    def _knows(self, field: str) -> bool:
        host = _host(field)
        return host is not None and (host.name in self._names or host.name == "localhost" or host.address is not None)

    def _trusts(self, origin: str, host: str | None) -> bool:
        if origin in self._origins:
            return True
        page = _page(origin)
        if page is None:
            return False
        return page.is_this_machine or (host is not None and page == _host(host) and self._knows(host))


def _page(origin: str) -> _Host | None:
    """Returns the host of a page's origin; None for what is no page's, such as `null`."""
    found = _ORIGIN.fullmatch(origin)
    return None if found is None else _host(found["host"])


def _host(field: str | None) -> _Host | None:
    """Returns what a `Host` names; None for what is no host with or without a port."""
    found = None if field is None else _HOST.fullmatch(field)
    if found is None or int(found["port"] or 0) > 65535:
        return None
    host = _Host(found["name"].strip("[]").lower(), found["port"])
    is_bracketed = found["name"].startswith("[")
    return None if is_bracketed and not isinstance(host.address, IPv6Address) else host
