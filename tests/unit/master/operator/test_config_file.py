"""Which configuration file is taken, and how a key gets into one."""

import stat
import tomllib
from pathlib import Path

import pytest

from millrace.master.operator import config_file
from millrace.master.operator.cli import keys, main
from millrace.master.operator.config_file import KeysRefused, found, readable_secrets, write_keys
from millrace.relay.config.model import Config
from millrace.relay.config.parse import parse


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def test_the_working_directorys_file_comes_before_the_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machines = tmp_path / "etc.toml"
    monkeypatch.setattr(config_file, "PLACES", (Path("millrace.toml"), machines))
    monkeypatch.chdir(tmp_path)
    assert found() is None
    machines.write_text("")
    assert found() == machines
    (tmp_path / "millrace.toml").write_text("")
    assert found() == tmp_path / "millrace.toml"


def test_a_found_file_is_used_by_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["keys", "--write", "millrace.toml"]) == 0
    assert main(["token", "--room", "demo", "--identity", "me"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].count(".") == 2


def test_keys_are_written_where_only_the_owner_reads(tmp_path: Path) -> None:
    file = tmp_path / "millrace.toml"
    write_keys(file, keys())
    assert mode(file) == 0o600
    config = parse(file.read_text())
    assert isinstance(config, Config)
    assert len(config.auth.keys) == 1


def test_keys_are_added_to_what_a_file_says(tmp_path: Path) -> None:
    file = tmp_path / "millrace.toml"
    file.write_text("[http]\nport = 8080")
    file.chmod(0o644)
    write_keys(file, keys())
    assert mode(file) == 0o600
    config = parse(file.read_text())
    assert isinstance(config, Config)
    assert (config.http.port, len(config.auth.keys)) == (8080, 1)


@pytest.mark.parametrize(("text", "said"), [('[auth]\nkeys = { a = "b" }\n', "has keys"), ("[auth", "cannot be used")])
def test_a_file_with_keys_or_without_sense_is_left_as_it_is(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "millrace.toml"
    file.write_text(text)
    with pytest.raises(KeysRefused, match=said):
        write_keys(file, keys())
    assert file.read_text() == text
    assert list(tmp_path.iterdir()) == [file]


def test_secrets_that_others_can_read_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "millrace.toml"
    file.write_text(keys())
    file.chmod(0o640)
    assert main(["check", str(file)]) == 0
    assert "chmod 600" in capsys.readouterr().err
    file.chmod(0o600)
    assert main(["check", str(file)]) == 0
    assert capsys.readouterr().err == ""
    file.chmod(0o644)
    assert readable_secrets(file, has_secrets=False) is None


EXAMPLE = Path(__file__).parents[4] / "deploy" / "millrace.example.toml"


@pytest.mark.parametrize(
    "text", [EXAMPLE.read_text(), "[auth]\npublic_rooms = ['a']\n[log]\nlevel = 'info'\n", "[auth]"]
)
def test_a_section_without_keys_gets_them(tmp_path: Path, text: str) -> None:
    file = tmp_path / "millrace.toml"
    file.write_text(text)
    section = keys()
    write_keys(file, section)
    before, after = tomllib.loads(text), tomllib.loads(file.read_text())
    assert after == before | {"auth": before["auth"] | tomllib.loads(section)["auth"]}
    with pytest.raises(KeysRefused, match="has keys"):
        write_keys(file, keys())


@pytest.mark.parametrize("text", ["auth.public_rooms = []\n", "auth = { keys = {} }\n", "[auth.keys]\n"])
def test_where_there_is_no_place_for_keys_nothing_is_written(tmp_path: Path, text: str) -> None:
    file = tmp_path / "millrace.toml"
    file.write_text(text)
    with pytest.raises(KeysRefused):
        write_keys(file, keys())
    assert file.read_text() == text
