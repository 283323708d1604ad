"""Which web pages may use a server, by the `Origin` and `Host` that browsers send. Owns CORS, and the guard of
addresses that ask for no token: a browser on this machine reaches its loopback for any page in the world. It must never
know a route. Read next: `workers/http/server.py`, which asks for each request.
"""

from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from aiohttp import web

from millrace.workers.http.answers import problem

EXPOSED = "Location, ETag, Link, Retry-After, Accept-Post, Accept-Patch, WWW-Authenticate"
"""Response headers that a script of another origin needs: RFC 9725 sections 4.2, 4.3, 4.5 and 4.6."""


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
        return origin in self._origins or (self._this_machine and _names_this_machine(_host(origin)))


class Guard:
    """Refuses requests of other sites' pages. Programs that are no browsers send no `Origin`, and call us by our
    address.
    """

    def __init__(self, origins: Collection[str], checks_host: bool) -> None:
        self._origins = frozenset(origins)
        self._hosts = frozenset(map(_host, origins)) - {""}
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
        return origin is not None and not (
            self._trusts(origin, host) or (host is not None and origin == f"https://{host}")
        )

    def _knows(self, host: str) -> bool:
        name = _host(f"//{host}")
        return name in self._hosts or name == "localhost" or _address(name) is not None

    def _trusts(self, origin: str, host: str | None) -> bool:
        if origin in self._origins or _names_this_machine(_host(origin)):
            return True
        return host is not None and origin.partition("://")[2] == host and self._knows(host)


def _host(url: str) -> str:
    """Returns the host in lower case, without the port; empty when the URL has none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _names_this_machine(host: str) -> bool:
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback
