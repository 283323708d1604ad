"""SIGHUP in the middle of a call: other keys, another certificate, a lower limit. Newcomers get the new configuration,
and who is there notices nothing.
"""

import os
import signal
import time
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import jwt

from millrace.master.start.certificate import Certificate
from millrace.master.start.x509 import make_certificate
from tests.clients.aiortc_client import Viewer
from tests.system.asking import counter, patch
from tests.system.posts import OFFER
from tests.system.relay_process import Relay
from tests.system.watched import Watched, watched_call
from tests.system.worker_pids import pid_by_slot, until_gone

DONE = "all workers have the new configuration"
SECRETS = {"old": "0123456789abcdef0123456789abcdef", "kept": "k" * 32, "new": "n" * 32}
ASKED = 16
"""On connections of their own: one in thirty thousand times they would all go to the same of two workers."""


async def test_key_that_was_added_admits_and_one_that_was_removed_does_not_and_the_call_goes_on() -> None:
    tokens = token("old", "ann"), token("kept", "ben")
    async with (
        Relay(workers=2, config=keys("old", "kept")) as relay,
        watched_call(relay, audio=False, tokens=tokens) as (_, _, watched),
    ):
        states = list(watched.states)
        assert await posted(relay, token("old", "cem")) == {201}
        assert await posted(relay, token("new", "cem")) == {401}
        await reload(relay, keys("kept", "new"))
        assert await posted(relay, token("new", "cem")) == {201}
        assert await posted(relay, token("kept", "cem")) == {201}
        assert await posted(relay, token("old", "cem")) == {401}
        await goes_on(relay, watched, states)


async def test_newcomers_are_shown_the_new_certificate_and_calls_under_the_old_one_go_on(tmp_path: Path) -> None:
    first, second = (make_certificate(datetime.now(UTC)) for _ in range(2))
    async with (
        Relay(workers=2, config=written(tmp_path, first)) as relay,
        watched_call(relay, audio=False) as (publisher, viewer, watched),
    ):
        states = list(watched.states)
        assert shown(viewer) == {first.fingerprint}
        # As renewals do: in place.
        await reload(relay, written(tmp_path, second))
        assert "applied=dtls.certificate" in relay.log()
        for slot in (0, 1):
            async with Viewer(f"{relay.url}/whep/hall", audio=False) as late:
                await late.open(slot)
                assert shown(late) == {second.fingerprint}
                await late.until_frames(1)
        await goes_on(relay, watched, states)
        assert [await patch(client) for client in (publisher, viewer)] == [204, 204]


async def test_limit_below_what_there_is_turns_newcomers_away_and_nobody_out() -> None:
    async with (
        Relay(workers=1) as relay,
        watched_call(relay, audio=False, viewer_slot=0) as (publisher, viewer, watched),
    ):
        states = list(watched.states)
        await reload(relay, "[limits]\nsessions_per_worker = 1\n")
        assert await posted(relay) == {503}
        await goes_on(relay, watched, states)
        assert [await patch(client) for client in (publisher, viewer)] == [204, 204]
        await reload(relay, "[limits]\nsessions_per_worker = 3\n", 2)
        async with Viewer(f"{relay.url}/whep/hall", audio=False) as late:
            await late.open()
            await late.until_frames(1)
            assert await posted(relay) == {503}
        await goes_on(relay, watched, states)


async def test_a_planned_replacement_is_no_death_and_a_death_is_no_replacement() -> None:
    async with Relay(workers=2) as relay:

        async def counted(slot: int) -> list[int]:
            names = ("starts", "deaths", "replacements")
            return [await counter(relay, f'millrace_worker_{name}_total{{slot="{slot}"}}') for name in names]

        await reload(relay, "[limits]\nm_lines = 16\n")
        assert [await counted(slot) for slot in (0, 1)] == [[2, 0, 1], [2, 0, 1]]
        victim = pid_by_slot(relay)[1]
        os.kill(victim, signal.SIGKILL)
        await until_gone(victim, 20)
        await relay.until_logged("worker started", 5)
        await relay.until_ready()
        assert [await counted(slot) for slot in (0, 1)] == [[2, 0, 1], [3, 1, 1]]


def keys(*names: str) -> str:
    return "[auth.keys]\n" + "".join(f'{name} = "{SECRETS[name]}"\n' for name in names)


def token(key: str, identity: str) -> str:
    grants = {"room": "hall", "roomJoin": True}
    return jwt.encode({"iss": key, "sub": identity, "exp": int(time.time()) + 600, "video": grants}, SECRETS[key])


def written(folder: Path, certificate: Certificate) -> str:
    (folder / "certificate.pem").write_text(certificate.certificate_pem)
    (folder / "key.pem").write_text(certificate.private_key_pem)
    return f'[dtls]\ncertificate = "{folder}/certificate.pem"\nkey = "{folder}/key.pem"\n'


def shown(client: Viewer) -> set[str]:
    """The fingerprints in the answer."""
    lines = client.connection.remoteDescription.sdp.splitlines()
    return {line.partition(":")[2] for line in lines if line.startswith("a=fingerprint:sha-256")}


async def reload(relay: Relay, config: str, times: int = 1) -> None:
    """For the so-many-th time."""
    relay.config_path.write_text(config)
    os.kill(relay.pid, signal.SIGHUP)
    await relay.until_logged(DONE, times)


async def posted(relay: Relay, bearer: str = "") -> set[int]:
    """What viewers get who come one after the other, and leave when they are in."""
    headers = {"Content-Type": "application/sdp"} | ({"Authorization": f"Bearer {bearer}"} if bearer else {})
    statuses = set()
    for _ in range(ASKED):
        async with aiohttp.ClientSession() as http:
            async with http.post(f"{relay.url}/whep/hall", data=OFFER, headers=headers) as answer:
                statuses.add(answer.status)
                assert answer.status != 503 or int(answer.headers["Retry-After"]) > 0
            if answer.status == 201:
                async with http.delete(relay.url + answer.headers["Location"], headers=headers):
                    pass
    return statuses


async def goes_on(relay: Relay, watched: Watched, states: list[str]) -> None:
    """The same session, with the keys that it had."""
    await watched.until_packets(time.monotonic(), 30)
    assert watched.states == states
    assert await counter(relay, "millrace_sessions_lost_total") == 0
