"""Each way in which a session fails, done to the real server: what the administration says is one cause, the right
one, and it is counted. Read next: `tests/clients/raw_client.py`, which does one thing wrong at a time.
"""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.clients.raw_client import RawClient, key_frame, request
from tests.system.relay_process import Relay

SHORT = {"ice": "4", "handshake": "4", "consent": "4"}
"""Seconds, of all side by side: longer than a machine stands still between two steps."""


@pytest.fixture
async def impatient() -> AsyncIterator[Relay]:
    async with Relay(settings={f"timeouts.{name}_seconds": value for name, value in SHORT.items()}) as relay:
        yield relay


def session(relay: Relay, client: RawClient) -> dict[str, Any]:
    answered = request("GET", f"{relay.admin}/sessions/{client.session}")
    assert answered.status == 200, answered
    found: dict[str, Any] = json.loads(answered.body)
    return found


def failures(relay: Relay) -> dict[str, float]:
    page = request("GET", f"{relay.admin}/metrics").body
    prefix = "millrace_sessions_failed_total{"
    lines = (line[len(prefix) :].split('"') for line in page.splitlines() if line.startswith(prefix))
    return {cause: float(value.removeprefix("} ")) for _, cause, value in lines}


async def until_cause(relay: Relay, client: RawClient, seconds: float = 30.0) -> dict[str, Any]:
    """Until there is one, without a check of the client meanwhile."""
    deadline = time.monotonic() + seconds
    while (found := session(relay, client))["cause"] is None:
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.02)
    return found


def does_nothing(client: RawClient) -> None:
    pass


def signs_checks_with_another_password(client: RawClient) -> None:
    assert not client.check(0.2, pwd="x" * 24)


def stops_after_its_checks(client: RawClient) -> None:
    assert client.check()


def stops_after_its_client_hello(client: RawClient) -> None:
    assert client.check()
    client.say_hello()


def sends_garbage_for_dtls(client: RawClient) -> None:
    assert client.check()
    for length in (13, 50, 500):
        client.send(b"\x16\xfe\xfd" + os.urandom(length))
        client.send(b"\x16\xfe\xfd" + bytes(8) + length.to_bytes(2, "big") + os.urandom(length))


def has_another_certificate_than_it_promised(client: RawClient) -> None:
    assert client.check()
    client.handshake()


def alerts(client: RawClient) -> None:
    stops_after_its_client_hello(client)
    # Fatal handshake_failure (RFC 5246 section 7.2), in the record of RFC 6347 section 4.1.
    client.send(b"\x15\xfe\xfd" + bytes(7) + b"\x05" + b"\x00\x02" + b"\x02\x28")


def offers_no_srtp(client: RawClient) -> None:
    assert client.check()
    client.srtp_profiles = b""
    client.handshake()


def falls_silent(client: RawClient) -> None:
    client.connect()


def leaves(client: RawClient) -> None:
    client.connect()
    client.say_goodbye()


CASES: list[tuple[Callable[[RawClient], None], str, str]] = [
    (does_nothing, "whip", "no_stun"),
    (signs_checks_with_another_password, "whip", "bad_integrity"),
    (stops_after_its_checks, "whip", "no_client_hello"),
    (stops_after_its_client_hello, "whip", "handshake_timeout"),
    (sends_garbage_for_dtls, "whip", "no_client_hello"),
    (has_another_certificate_than_it_promised, "whip", "fingerprint_mismatch"),
    (alerts, "whip", "dtls_alert"),
    (offers_no_srtp, "whip", "no_srtp_profile"),
    (falls_silent, "whep", "consent_lost"),
    (leaves, "whip", "closed_by_peer"),
]


async def test_each_failure_has_its_one_cause_which_is_counted(impatient: Relay) -> None:
    clients = []
    for step, protocol, cause in CASES:
        client = RawClient(f"{impatient.url}/{protocol}/hall")
        if step is has_another_certificate_than_it_promised:
            client.promised = ":".join(["AB"] * 32)
        clients.append((client.post(), step.__name__, cause))
        step(client)
    found = {}
    for client, name, _ in clients:
        ended = await until_cause(impatient, client)
        assert ended["state"] == "ended", (name, ended)
        found[name] = ended["cause"]
        client.socket.close()
    assert found == {name: cause for _, name, cause in clients}
    counted = failures(impatient)
    expected = dict.fromkeys(counted, 0.0)
    for _, _, cause in CASES:
        if cause not in ("closed_by_peer", "consent_lost"):
            expected[cause] += 1
    assert counted == expected
    assert "closed_by_peer" not in counted
    vanished = "\nmillrace_sessions_vanished_total 1.0\n"
    assert vanished in request("GET", f"{impatient.admin}/metrics").body, "who leaves without a word has not failed"


async def test_a_publisher_that_sends_nothing_is_said_to_and_mends_when_it_does() -> None:
    async with Relay(settings={"timeouts.media_seconds": "1"}) as relay:
        with RawClient(f"{relay.url}/whip/hall") as client:
            client.post().connect()
            found = await until_cause(relay, client)
            assert (found["state"], found["cause"]) == ("connected", "no_srtp")
            assert failures(relay)["no_srtp"] == 1
            client.send(client.packet(key_frame()))
            deadline = time.monotonic() + 20
            while session(relay, client)["cause"] is not None:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)
            assert failures(relay)["no_srtp"] == 1
