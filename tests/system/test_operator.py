"""`millrace status` and `millrace doctor` against a running relay."""

import asyncio
import json
import re
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.clients.aiortc_client import Publisher, Viewer
from tests.system.relay_process import ROOT, Relay


async def millrace(*arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "millrace.master", *arguments,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await asyncio.wait_for(process.communicate(), 40)
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_status_shows_workers_and_rooms(relay: Relay) -> None:
    async with Publisher(f"{relay.url}/whip/hall") as publisher, Viewer(f"{relay.url}/whep/hall") as viewer:
        await publisher.open(0)
        await viewer.open(1)
        await viewer.until_frames(5)
        status, text = await millrace("status", "--once", "--url", relay.admin)
    assert status == 0, text
    rows = [line.split() for line in text.splitlines()]
    assert [row[:3] for row in rows if row[1:2] == ["up"]] == [["0", "up", "1"], ["1", "up", "1"]]
    assert ["hall", "2", "1", "1"] in rows
    (out,) = [row for row in rows if row[:1] == ["out"]]
    assert int(out[3].replace(",", "")) > 10, "packets a second"


async def test_doctor_makes_a_call(relay: Relay) -> None:
    status, text = await millrace("doctor", "--set", "media.port=0", "--url", relay.url)
    assert status == 0, text
    (call,) = [line for line in text.splitlines() if "a call" in line]
    assert call.startswith("ok")
    assert "30 frames" in call
    ways = dict(line[6:].split(": ", 1) for line in text.splitlines() if line.startswith("ok    from here, "))
    assert re.fullmatch(rf"127\.0\.0\.1:{relay.media_port} answers after \d+ ms", ways["from here, UDP"])
    assert re.fullmatch(rf"127\.0\.0\.1:{relay.media_port} answers after \d+ ms", ways["from here, TCP"])
    assert ways["from here, TURN"] == "the server names none (ice.servers)"


async def test_doctor_says_that_nobody_answers() -> None:
    status, text = await millrace("doctor", "--set", "http.port=0", "--url", "http://127.0.0.1:1")
    assert status == 1
    assert "FAIL  a call" in text


@pytest.mark.parametrize("name", ["hall", "Café 2"])
async def test_rooms_and_sessions_are_listed_and_a_session_is_put_out(relay: Relay, name: str) -> None:
    async with Publisher(f"{relay.url}/whip/{quote(name)}") as publisher:
        await publisher.open()
        await publisher.connected()
        status, text = await millrace("rooms", "--url", relay.admin)
        assert (status, text.splitlines()[1].split()) == (0, [*name.split(), "1", "1", "0"])
        status, text = await millrace("sessions", name, "--url", relay.admin)
        assert (status, text.splitlines()[1].split()[0]) == (0, publisher.session)
        status, text = await millrace("sessions", name, "--json", "--url", relay.admin)
        assert [each["session"] for each in json.loads(text)["sessions"]] == [publisher.session]
        status, text = await millrace("status", "--once", "--json", "--url", relay.admin)
        assert sum(worker["sessions"] for worker in json.loads(text)["workers"]) == 1
        assert await millrace("kick", publisher.session, "--url", relay.admin) == (
            0,
            f"session {publisher.session} is closed\n",
        )
        status, text = await millrace("kick", publisher.session, "--url", relay.admin)
        assert (status, "millrace: " in text) == (1, True)
        publisher.session_url = ""
    status, text = await millrace("sessions", name, "--url", relay.admin)
    assert (status, text) == (1, "millrace: Nobody is in a room of this name.\n")
    status, text = await millrace("rooms", "--json", "--url", relay.admin)
    assert (status, json.loads(text)) == (0, [])


async def test_processes_say_which_is_the_master_and_which_a_worker(relay: Relay) -> None:
    titles = {pid: Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0") for pid in relay.processes()}
    assert titles.pop(relay.pid).startswith("millrace: master ")
    assert sorted(titles.values()) == ["millrace: worker 0", "millrace: worker 1"]
