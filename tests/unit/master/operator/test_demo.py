"""What `millrace serve --https` adds to the configuration."""

import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from millrace.master.operator.cli import keys
from millrace.master.operator.demo import LIFE, SPARE, DemoRefused, folder, settings
from millrace.relay.config.model import Config
from millrace.relay.config.parse import parse

NOW = datetime(2026, 12, 1, tzinfo=UTC)


def parsed(text: str = "", overrides: tuple[str, ...] = ()) -> Config:
    config = parse(text, overrides)
    assert isinstance(config, Config), config
    return config


def demo(folder: Path, text: str = "", now: datetime = NOW) -> Config:
    """The configuration with what the demonstration adds."""
    return parsed(text, tuple(settings(parsed(text), folder, keys(), now)))


def test_it_serves_https_on_all_addresses_with_a_key(tmp_path: Path) -> None:
    config = demo(tmp_path / "kept")
    assert (config.http.bind, config.media.bind) == (("0.0.0.0", "::"), ("0.0.0.0", "::"))
    assert not config.is_open
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(config.http.certificate, config.http.key)


def test_others_read_none_of_its_files(tmp_path: Path) -> None:
    demo(tmp_path / "kept")
    assert stat.S_IMODE((tmp_path / "kept").stat().st_mode) == 0o700
    files = list((tmp_path / "kept").iterdir())
    assert len(files) == 3
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_certificate_and_key_stay_until_the_certificate_is_about_to_end(tmp_path: Path) -> None:
    first = demo(tmp_path)
    shown = Path(first.http.certificate).read_text()
    again = demo(tmp_path, now=NOW + LIFE - SPARE - timedelta(hours=1))
    assert Path(again.http.certificate).read_text() == shown
    assert again.auth.keys == first.auth.keys
    later = demo(tmp_path, now=NOW + LIFE - SPARE + timedelta(hours=1))
    assert Path(later.http.certificate).read_text() != shown
    assert later.auth.keys == first.auth.keys


def test_a_certificate_for_other_addresses_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Path(demo(tmp_path).http.certificate).read_text()
    monkeypatch.setattr("millrace.master.operator.demo.own_addresses", lambda version: [f"192.0.2.{version}"])
    moved = Path(demo(tmp_path).http.certificate).read_text()
    assert moved != shown
    assert Path(demo(tmp_path).http.certificate).read_text() == moved


def test_what_is_configured_stays(tmp_path: Path) -> None:
    text = f'[http]\nbind = ["127.0.0.2"]\n[auth]\nkeys = {{ mine = "{"s" * 32}" }}\n'
    config = demo(tmp_path, text)
    assert config.http.bind == ("127.0.0.2",)
    assert list(config.auth.keys) == ["mine"]
    assert not (tmp_path / "keys.toml").exists()


def test_a_configured_certificate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DemoRefused, match=r"http\.certificate names one already"):
        demo(tmp_path, '[http]\ncertificate = "/a"\nkey = "/b"\n')


def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DemoRefused, match=r"--https: .*file.* cannot be used"):
        demo(tmp_path / "file" / "kept")


def test_the_folder_is_the_users() -> None:
    assert folder({"XDG_STATE_HOME": "/s", "HOME": "/h"}) == Path("/s/millrace")
    assert folder({"HOME": "/h"}) == Path("/h/.local/state/millrace")
    with pytest.raises(DemoRefused):
        folder({})
