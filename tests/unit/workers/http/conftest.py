"""Servers for the tests of this folder."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from millrace.workers.http.page import Page
from millrace.workers.http.server import Deadlines
from tests.unit.workers.http.http_kit import Control, Site, public, serve


@pytest.fixture
def page(tmp_path: Path) -> Page:
    (tmp_path / "index.html").write_text("<!doctype html><title>page</title>")
    (tmp_path / "watch.html").write_text("<!doctype html><title>player</title>")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "app.js").write_text("1")
    (tmp_path / "secret.py").write_text("x")
    return Page(tmp_path).framed_by(("https://site.example",))


@pytest.fixture
async def site(page: Page) -> AsyncIterator[Site]:
    control = Control()
    async for site in serve(public(control, page), control, Deadlines(5, 60), 4):
        yield site


@pytest.fixture
async def impatient(page: Page) -> AsyncIterator[Site]:
    control = Control()
    async for site in serve(public(control, page, seconds=0.3), control, Deadlines(0.3, 60), 4):
        yield site


@pytest.fixture
async def patient(page: Page) -> AsyncIterator[Site]:
    control = Control()
    async for site in serve(public(control, page, seconds=60), control, Deadlines(60, 60), 4):
        yield site
