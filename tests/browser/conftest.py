"""Fixtures of the browser tests: each starts real processes, and at most two browsers."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.browser.browser import Browser, open_browser
from tests.browser.peers import LAN
from tests.system.namespace import network_namespace
from tests.system.relay_process import Relay

ARTIFACTS = Path(__file__).parents[1] / "artifacts"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)
            # A call may be looked at again and again.
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(300))


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    """Two workers with the default configuration."""
    async with Relay() as relay:
        yield relay


@pytest.fixture
def namespace() -> Iterator[None]:
    """The test's network is its own. Ask for it before anything that starts a process."""
    if os.geteuid() != 0:
        pytest.skip("a network namespace needs root")
    with network_namespace():
        yield


@pytest.fixture
async def lan_relay(namespace: None) -> AsyncIterator[Relay]:
    """Two workers whose media is on an Ethernet address: Firefox and libnice leave loopback out."""
    async with Relay(settings=LAN) as relay:
        yield relay


@pytest.fixture
async def chromium() -> AsyncIterator[Browser]:
    async with open_browser("chromium") as browser:
        yield browser


@pytest.fixture
async def firefox() -> AsyncIterator[Browser]:
    async with open_browser("firefox") as browser:
        yield browser
