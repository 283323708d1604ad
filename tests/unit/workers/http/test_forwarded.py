"""Whose address counts: a proxy is believed about its client, and nobody else about anything."""

import pytest

from millrace.relay.contract.inputs import Offered, RoomsListed
from millrace.workers.http.forwarded import forwarded_address
from millrace.workers.http.page import Page
from millrace.workers.http.server import Deadlines
from tests.unit.workers.http.http_kit import SDP, Control, public, serve

TRUSTED = ("127.0.0.1", "10.0.0.0/8", "2001:db8::/32")


@pytest.mark.parametrize(
    ("peer", "fields", "address"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        # Nobody's proxy: the client itself has written this.
        ("203.0.113.9", ["192.168.7.1"], "203.0.113.9"),
        ("127.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", [""], "127.0.0.1"),
        # A client may send the header, too: only what our proxies add counts.
        ("127.0.0.1", ["192.168.7.1, 203.0.113.9"], "203.0.113.9"),
        ("127.0.0.1", ["192.168.7.1", "203.0.113.9"], "203.0.113.9"),
        ("127.0.0.1", ["192.168.7.1, 203.0.113.9, 10.1.2.3"], "203.0.113.9"),
        ("127.0.0.1", ["10.1.2.3,10.1.2.4"], "10.1.2.3"),
        ("127.0.0.1", ["192.168.7.1, nonsense, 10.1.2.3"], "10.1.2.3"),
        ("127.0.0.1", ["192.168.7.1, unknown"], "127.0.0.1"),
        ("127.0.0.1", ["203.0.113.9:50123"], "203.0.113.9"),
        ("127.0.0.1", ["[2a01::9]:50123"], "2a01::9"),
        ("2001:db8::1", ["2a01::9"], "2a01::9"),
        ("127.0.0.1", ["10.0.0.1," * 100_000 + "203.0.113.9"], "203.0.113.9"),
        ("", ["203.0.113.9"], ""),
    ],
)
def test_the_address_is_the_last_that_is_no_trusted_proxys(peer: str, fields: list[str], address: str) -> None:
    assert forwarded_address(peer, fields, TRUSTED) == address


def test_without_trusted_proxies_the_connections_address_counts() -> None:
    assert forwarded_address("127.0.0.1", ["203.0.113.9"], ()) == "127.0.0.1"


@pytest.mark.parametrize(("trusted", "address"), [((), "127.0.0.1"), (("127.0.0.0/8",), "203.0.113.9")])
async def test_control_is_told_it(page: Page, trusted: tuple[str, ...], address: str) -> None:
    control = Control()
    async for site in serve(public(control, page, trusted=trusted), control, Deadlines(5, 60), 4):
        headers = SDP | {"X-Forwarded-For": "203.0.113.9"}
        await site.client.post(f"{site.url}/whip/hall", data="v=0", headers=headers)
        await site.client.get(f"{site.url}/rooms", headers=headers)
    offered, listed = control.asked
    assert isinstance(offered, Offered)
    assert isinstance(listed, RoomsListed)
    assert offered.address == listed.address == address
