"""Dashboard and alerts ask for metrics that a running relay really has."""

import json
import re
import subprocess
from pathlib import Path

import aiohttp

from tests.system.relay_process import Relay
from tests.system.unpacked import program

WITH_HTTPS = {"millrace_http_certificate_end_time_seconds"}
"""Of a relay with a certificate, as in `tests/system/test_https.py`."""
DEPLOY = Path(__file__).parents[2] / "deploy"


def names(text: str) -> set[str]:
    return set(re.findall(r"\bmillrace_\w+", text))


async def page(relay: Relay) -> set[str]:
    async with aiohttp.ClientSession() as http:
        # A refusal is counted from the first on.
        async with http.post(f"{relay.url}/whip/hall", data="no offer", headers={"Content-Type": "application/sdp"}):
            pass
        while True:
            async with http.get(f"{relay.admin}/metrics") as answer:
                found = set(re.findall(r"^(millrace_\w+)", await answer.text(), re.MULTILINE))
            # Control's counters come with its second.
            if "millrace_http_refusals_total" in found:
                return found


async def test_every_metric_that_is_asked_for_exists(relay: Relay) -> None:
    found = await page(relay) | WITH_HTTPS
    dashboard = json.loads((DEPLOY / "grafana" / "millrace.json").read_text())
    asked = names(" ".join(target["expr"] for panel in dashboard["panels"] for target in panel["targets"]))
    assert len(asked) > 20
    assert asked - found == set()
    rules = names(" ".join(re.findall(r"expr: (.*)", (DEPLOY / "prometheus" / "millrace.rules.yml").read_text())))
    assert len(rules) >= 8
    assert rules - found == set()
    histograms = {name.removesuffix("_bucket") for name in found}
    assert names((DEPLOY / "OPERATIONS.md").read_text()) - found - histograms == set()


def test_alerts_cry_when_they_should_and_not_at_what_was_planned() -> None:
    tested = subprocess.run(
        [program("promtool"), "test", "rules", "millrace.rules.test.yml"],
        cwd=DEPLOY / "prometheus", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert tested.returncode == 0, tested.stdout + tested.stderr
