"""The runtime directory of tests that make or inherit a server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from millrace.master.takeover.runtime_directory import Runtime, claim, leave
from tests.unit.master.takeover_kit import config


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    made = claim(config(f'runtime.directory="{tmp_path / "run"}"'))
    yield made
    leave(made)
