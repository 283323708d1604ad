"""The command's answers, without a server."""

import json
import os
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from millrace.master.operator.cli import keys, main
from millrace.relay.access.grants import Grant, check
from millrace.relay.config.model import Config
from millrace.relay.config.parse import parse


def test_check_says_every_problem_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "millrace.toml"
    file.write_text("[http]\nport = 0.5\n[media]\nbind = []\n")
    assert main(["check", str(file)]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert said[0] == f"{file}: http.port: found 0.5, expected a whole number from 0 to 65535"


def test_check_says_what_is_wrong_with_the_text_and_with_what_it_names_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "millrace.toml"
    file.write_text(
        "[http]\nport = 0.5\n"
        f'[dtls]\ncertificate = "{tmp_path}/none.pem"\nkey = "{tmp_path}/none.key"\n'
        f'[log]\nfile = "{tmp_path}/none/x.log"\n'
        '[runtime]\ndirectory = "/etc"\n'
    )
    assert main(["check", str(file)]) == 1
    said = [line.removeprefix(f"{file}: ") for line in capsys.readouterr().err.splitlines()]
    assert [line.partition(": ")[0] for line in said] == [
        "http.port",
        "dtls.certificate",
        "dtls.key",
        "log.file",
        "runtime.directory",
    ]
    assert said[3] == f"log.file: {tmp_path}/none/x.log cannot be written: No such file or directory"
    assert said[4].endswith("with mode 0700")


def test_check_makes_neither_the_log_nor_the_directory_that_it_looks_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "millrace.toml"
    file.write_text(f'[log]\nfile = "{tmp_path}/x.log"\n[runtime]\ndirectory = "{tmp_path}/a/run"\n')
    assert main(["check", str(file)]) == 0, capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [file]
    (tmp_path / "x.log").mkdir()
    (tmp_path / "a").write_text("")
    assert main(["check", str(file)]) == 1
    said = [line.removeprefix(f"{file}: ") for line in capsys.readouterr().err.splitlines()]
    assert said[0] == f"log.file: {tmp_path}/x.log cannot be written: Is a directory"
    assert said[1].startswith(f"runtime.directory: {tmp_path}/a/run cannot be made")


def test_check_passes_a_good_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "millrace.toml"
    file.write_text("[http]\nport = 8080\n")
    assert main(["check", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: no problems\n"


def test_check_reads_the_certificate_that_a_file_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "millrace.toml"
    file.write_text(f'[dtls]\ncertificate = "{tmp_path}/none.pem"\nkey = "{tmp_path}/none.key"\n')
    assert main(["check", str(file)]) == 1
    assert capsys.readouterr().err.startswith(f"{file}: dtls.certificate: {tmp_path}/none.pem is no PEM certificate")


def test_check_of_a_missing_file_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "none.toml")]) == 1
    assert "No such file" in capsys.readouterr().err


def test_each_problem_says_whether_the_file_or_the_command_line_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "millrace.toml"
    file.write_text("[admin]\nport = 8080\n[workers]\npin = 1\n")
    settings = ["--set", "workers.count=x", "--set", "http.port=8080", "--set", "nothing"]
    assert main(["serve", "--config", str(file), *settings]) == 1
    assert sorted(capsys.readouterr().err.splitlines()) == [
        f"{file}: workers.pin: found 1, expected true or false",
        'command line: --set: found "nothing", expected section.key=value',
        "command line: admin.port: found 8080, expected another port than http.port",
        'command line: workers.count: found "x", expected a whole number from 0 to 64',
    ]
    assert main(["serve", "--workers", "65"]) == 1
    assert capsys.readouterr().err.startswith("command line: workers.count: found 65, ")


@pytest.mark.parametrize(
    ("override", "named"),
    [
        (f'auth.keys={{ mykey = "{"s" * 32}" }}', "auth.keys"),
        (f"auth.keys.mykey={'s' * 32}", "auth.keys"),
        ('ice.servers=[{urls=["turn:t.example"], username="u", credential="secretword"}]', "ice.servers"),
        ('ice.servers=[{urls=["stun:t.example"]}]', None),
        ("auth.keys={}", None),
        ("http.port=1", None),
    ],
)
def test_a_secret_on_the_command_line_is_warned_of_by_its_key_alone(
    override: str, named: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["token", "--room", "hall", "--identity", "ann", "--set", override])
    lines = [line for line in capsys.readouterr().err.splitlines() if "(ps)" in line]
    assert len(lines) == (named is not None)
    for line in lines:
        assert line.startswith(f"millrace: --set {named} shows a secret to every user")
        assert "--config" in line
        assert "sss" not in line
        assert "mykey" not in line
        assert "secretword" not in line


def test_keys_are_what_the_configuration_takes() -> None:
    first, second = parse(keys()), parse(keys())
    assert isinstance(first, Config)
    assert isinstance(second, Config)
    assert len(first.auth.keys) == 1
    assert first.auth.keys != second.auth.keys


@pytest.mark.parametrize(
    ("flags", "publish", "subscribe"),
    [([], True, True), (["--publish"], True, False), (["--subscribe"], False, True)],
)
def test_token_opens_its_room_and_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], publish: bool, subscribe: bool
) -> None:
    file = tmp_path / "millrace.toml"
    file.write_text(keys())
    config = parse(file.read_text())
    assert isinstance(config, Config)
    assert main(["token", "--config", str(file), "--room", "hall", "--identity", "ann", *flags]) == 0
    grant = check(capsys.readouterr().out.strip(), config.auth.keys, time.time())
    assert isinstance(grant, Grant)
    assert (grant.publish_denial("hall") is None) is publish
    assert (grant.subscribe_denial("hall") is None) is subscribe
    assert grant.publish_denial("cellar") is not None
    assert grant.subscribe_denial("cellar") is not None


@pytest.mark.parametrize(
    ("option", "value", "found"),
    [
        ("--room", "two\nlines", '"two\\nlines"'),
        ("--room", "..", '".."'),
        ("--room", "", '""'),
        ("--identity", "", '""'),
        ("--identity", "a\nb", '"a\\nb"'),
        ("--identity", "x" * 257, '"xxxx'),
        ("--ttl", "0", "0"),
    ],
)
def test_token_that_the_server_would_never_take_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, found: str
) -> None:
    file = tmp_path / "millrace.toml"
    file.write_text(keys())
    names = {"--room": "hall", "--identity": "ann"} | {option: value}
    words = [word for pair in names.items() for word in pair]
    assert main(["token", "--config", str(file), *words]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"millrace: {option}: found {found}")
    assert ", expected " in said.err


@pytest.mark.parametrize(
    ("flags", "server", "page"),
    [
        (["--publish", "--subscribe"], "https://box.example/", "https://box.example/"),
        (["--publish"], "https://box.example:8443/media", "https://box.example:8443/media/"),
        (["--subscribe"], "https://box.example", "https://box.example/watch/hall"),
        (["--subscribe"], "http://[::1]:7880/media/", "http://[::1]:7880/media/watch/hall"),
    ],
)
def test_token_with_link_prints_a_page_whose_fragment_alone_has_the_token(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], server: str, page: str
) -> None:
    file = tmp_path / "millrace.toml"
    file.write_text(keys())
    config = parse(file.read_text())
    assert isinstance(config, Config)
    words = ["--config", str(file), "--room", "hall", "--identity", "ann", *flags, "--link", server]
    assert main(["token", *words]) == 0
    printed, _, token = capsys.readouterr().out.strip().partition("#token=")
    assert printed == page
    assert isinstance(check(token, config.auth.keys, time.time()), Grant)


@pytest.mark.parametrize(
    "server",
    ["box.example", "", "https://", "ftp://box", "https://me@box", "https://box/?a", "https://box#a", "https://b x"],
)
def test_token_with_a_link_to_no_server_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], server: str
) -> None:
    file = tmp_path / "millrace.toml"
    file.write_text(keys())
    words = ["--config", str(file), "--room", "hall", "--identity", "ann", "--link", server]
    assert main(["token", *words]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("millrace: --link: found ")


def test_token_without_keys_says_how_to_make_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "--room", "r", "--identity", "i"]) == 1
    assert "millrace keys" in capsys.readouterr().err


def test_doctor_names_the_extra_that_its_call_needs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "aiortc", None)
    monkeypatch.delitem(sys.modules, "millrace.master.operator.doctor_call", raising=False)
    main(["doctor", "--set", "http.port=0", "--set", "media.port=0", "--url", "http://127.0.0.1:1"])
    (call,) = [line for line in capsys.readouterr().out.splitlines() if "a call" in line]
    (extra,) = re.findall(r"'\.\[(\w+)\]'", call)
    project = tomllib.loads((Path(__file__).parents[4] / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"][extra][0].startswith("aiortc")


def test_server_without_keys_refuses_other_addresses_and_says_how_to_make_keys(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["serve", "--set", 'http.bind=["0.0.0.0"]', "--set", 'media.bind=["::"]']) == 1
    said = capsys.readouterr().err
    assert "http.bind" in said
    assert "media.bind" in said
    assert "millrace keys" in said


def test_token_of_the_demonstration_fits_the_key_that_it_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    tokens = []
    for _ in range(2):
        assert main(["token", "--https", "--room", "demo", "--identity", "me"]) == 0
        tokens.append(capsys.readouterr().out.strip())
    config = parse((tmp_path / "millrace" / "keys.toml").read_text())
    assert isinstance(config, Config)
    assert all(isinstance(check(token, config.auth.keys, time.time()), Grant) for token in tokens)


def test_check_gives_problems_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "millrace.toml"
    file.write_text("[http]\nport = 0.5\n")
    assert main(["check", "--json", str(file)]) == 1
    (problem,) = json.loads(capsys.readouterr().out)
    assert problem["key"] == "http.port"
    file.write_text("")
    assert main(["check", "--json", str(file)]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["check", "--json", str(tmp_path / "none")]) == 1
    assert "No such file" in json.loads(capsys.readouterr().out)[0]["text"]


def test_a_shell_is_told_what_could_come_next(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    assert "complete " in capsys.readouterr().out
    # As the script asks it: on descriptor 8, at the end of the line.
    reads, writes = os.pipe()
    line = "millrace dr"
    environment = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_SHELL": "bash"}
    program = "import os, sys; os.dup2(int(sys.argv[1]), 8); from millrace.master.operator.cli import main; main()"
    command = [sys.executable, "-c", program, str(writes)]
    subprocess.run(command, env=os.environ | environment, pass_fds=[writes], check=True, timeout=30)
    os.close(writes)
    assert os.read(reads, 4096).decode().strip() == "drain"
    os.close(reads)
