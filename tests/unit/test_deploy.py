"""What is deployed beside the program is whole: the dashboard is one that Grafana takes, the unit fits the program."""

import json
import re
import shutil
import subprocess
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

import pytest

from millrace.master.slots import Slots
from millrace.relay.config.model import WorkersConfig
from millrace.relay.contract.exits import Exit

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "millrace.json").read_text())
VARIABLES = {each["name"] for each in DASHBOARD["templating"]["list"]}


def test_dashboard_has_what_grafana_wants_of_one() -> None:
    assert DASHBOARD["uid"] == "millrace"
    assert DASHBOARD["title"]
    assert DASHBOARD["schemaVersion"] >= 36
    assert DASHBOARD["time"].keys() == {"from", "to"}
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids)) > 15


@pytest.mark.parametrize("panel", DASHBOARD["panels"], ids=lambda panel: str(panel["title"]))
def test_panel_asks_its_data_source_for_something(panel: dict[str, Any]) -> None:
    assert panel["type"] in ("timeseries", "stat")
    assert panel["datasource"] == {"type": "prometheus", "uid": "${source}"}
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    names = [target["refId"] for target in panel["targets"]]
    assert len(names) == len(set(names))
    for target in panel["targets"]:
        assert "millrace_" in target["expr"]
        assert target["expr"].count("(") == target["expr"].count(")")
        used = set(re.findall(r"\$\{?(\w+)", target["expr"])) - {"__rate_interval"}
        assert used <= VARIABLES


def test_panels_lie_on_the_grid_and_none_on_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


def test_panels_share_no_description() -> None:
    said = [panel["description"] for panel in DASHBOARD["panels"] if "description" in panel]
    assert len(said) == len(set(said))


def test_every_alert_has_a_summary_that_names_the_box() -> None:
    rules = (DEPLOY / "prometheus" / "millrace.rules.yml").read_text()
    alerts = rules.split("- alert:")[1:]
    assert len(alerts) >= 8
    for alert in alerts:
        assert "severity:" in alert
        assert re.search(r"summary: .*\{\{ \$labels\.instance \}\}", alert), alert


def test_what_is_built_beside_the_source_does_not_get_into_the_image() -> None:
    root = DEPLOY.parent
    ignored = {line for line in (root / ".dockerignore").read_text().splitlines() if not line.startswith("#")}
    for line in (root / ".gitignore").read_text().split():
        expected = line.strip("/") if line.startswith("/") else "**/" + line.rstrip("/")
        assert expected in ignored
    copied = re.findall(r"^COPY (?!--)(.*) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    for name in " ".join(copied).split():
        assert (root / name).exists()
        assert name not in ignored


def unit() -> RawConfigParser:
    unit = RawConfigParser(strict=False, delimiters=("=",))
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DEPLOY / "millrace.service")
    return unit


def test_unit_stays_down_when_its_workers_die_at_each_start() -> None:
    slots, now = Slots(1, WorkersConfig()), 0.0
    gives_up = None
    while gives_up is None:
        (life,) = slots.due(now)
        slots.forked(life, 100, now)
        death = slots.reaped(100, Exit.CRASHED << 8, now)
        assert death is not None
        gives_up, now = death.gives_up, max(now, life.due_at)
    starts = unit()["Unit"]
    # Twice as long: a start and a death take their time, too.
    assert int(starts["StartLimitIntervalSec"]) > 2 * int(starts["StartLimitBurst"]) * now


def test_unit_is_one_that_the_program_answers_to() -> None:
    service = unit()["Service"]
    assert service["Type"] == "notify"
    assert "HUP" in service["ExecReload"]
    assert int(service["WatchdogSec"]) >= 5
    assert service["KillMode"] == "process", "workers hear from the master alone, and outlive it"
    assert service["RuntimeDirectoryPreserve"] == "restart", "where workers without a master are found"
    # 64 slots: a doorbell each, and sockets on 2 + 1 + 2 addresses.
    assert int(service["FileDescriptorStoreMax"]) > 64 * 6 + 5
    assert set(service["CapabilityBoundingSet"].split()) == {"CAP_BPF", "CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE"}
    assert service["NoNewPrivileges"] == "yes"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_unit_exposes_little() -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=25", str(DEPLOY / "millrace.service")]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout[-300:] + checked.stderr


def test_every_sysctl_is_one_that_linux_may_have() -> None:
    lines = (DEPLOY / "99-millrace.conf").read_text().splitlines()
    settings = [line.partition(" = ") for line in lines if line and not line.startswith("#")]
    assert len(settings) >= 6
    for name, _, value in settings:
        assert re.fullmatch(r"(net|fs)(\.\w+)+", name)
        assert re.fullmatch(r"\d+( \d+)*", value)


@pytest.mark.parametrize("script", ["postinst", "prerm", "postrm"])
def test_the_packages_scripts_are_shell(script: str) -> None:
    done = subprocess.run(["sh", "-n", DEPLOY / "debian" / script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_package_keeps_the_operators_configuration_and_starts_nothing() -> None:
    debian = DEPLOY / "debian"
    assert (debian / "conffiles").read_text().split() == ["/etc/millrace/millrace.toml"]
    assert not re.search(r"enable|\bstart\b", (debian / "postinst").read_text())
    control = (debian / "control").read_text()
    assert set(re.findall(r"@[A-Z]+@", control)) == set(
        re.findall(r"@[A-Z]+@", (DEPLOY.parent / "scripts" / "dist.sh").read_text())
    )
