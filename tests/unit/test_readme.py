"""What README says to write into the configuration is taken as it stands."""

import re
from pathlib import Path
from textwrap import dedent

from millrace.relay.access.decision import NAMELESS, Gate
from millrace.relay.config.model import Config
from millrace.relay.config.parse import parse
from millrace.relay.contract.access import Action, Visitor
from millrace.relay.contract.refusal import Refusal
from tests.unit.control_kit import NOW, moment

README = Path(__file__).parents[2] / "README.md"


def test_three_lines_make_a_public_stream_that_only_its_owner_publishes() -> None:
    (lines,) = re.findall(r"\n\n((?:    .*\n)*    \[auth\]\n(?:    .*\n)*)", README.read_text())
    config = parse(dedent(lines))
    assert isinstance(config, Config), config
    assert len(lines.splitlines()) == 3
    gate = Gate(config.auth)
    for room in ("live", "public-1"):
        assert gate.decide(Action.WATCH, room, Visitor(), moment(NOW)) == NAMELESS
        assert isinstance(gate.decide(Action.PUBLISH, room, Visitor(), moment(NOW)), Refusal)
    assert isinstance(gate.decide(Action.WATCH, "hall", Visitor(), moment(NOW)), Refusal)
