"""Fixtures of the system tests: every test here starts real processes."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.system.relay_process import Relay


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.system)


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    """Two workers with the default configuration."""
    async with Relay() as relay:
        yield relay
