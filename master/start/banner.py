"""What a start prints: where the page, the metrics and the media port are. It must never know how the start goes. Read
next: `master/start/startup.py`, which shows the banner.
"""

from ipaddress import ip_address

from millrace.master.kernel.addresses import own_addresses
from millrace.master.kernel.sockets import Group
from millrace.master.start.prepare import Prepared


def banner(prepared: Prepared) -> str:
    """Returns the lines that a start prints."""
    steered = "the kernel steers" if prepared.is_steered else "workers hand over"
    media = prepared.sockets.media
    addresses = ", ".join(dict.fromkeys(candidate.address for candidate in prepared.candidates))
    lines = [
        f"Millrace serves with {prepared.goal} worker{'s' if prepared.goal > 1 else ''}.",
        f"  page     {_url(prepared.sockets.http[0], is_secure=prepared.https is not None)}/",
        f"  metrics  {_url(prepared.sockets.admin[0])}/metrics",
        f"  media    UDP port {media[0].port}{_tcp(prepared)} at {addresses}"
        + (f" ({steered})" if prepared.goal > 1 else ""),
        "  access   " + ("this machine only, without a token" if prepared.config.is_open else "with a token"),
    ]
    return "\n".join(lines) + "\n"


def _tcp(prepared: Prepared) -> str:
    tcp = prepared.sockets.tcp
    return f", TCP port {tcp[0].port}" if tcp else ""


def _url(group: Group, is_secure: bool = False) -> str:
    address = ip_address(group.address)
    host = own_addresses(address.version)[0] if address.is_unspecified else group.address
    scheme = "https" if is_secure else "http"
    return f"{scheme}://[{host}]:{group.port}" if address.version == 6 else f"{scheme}://{host}:{group.port}"
