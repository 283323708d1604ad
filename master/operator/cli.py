"""The `millrace` command: what it prints for each subcommand. It must never do what a subcommand does. Read next:
`master/operator/arguments.py`, what may be typed, and `master/master.py`, which `millrace serve` runs.
"""

import argparse
import json
import os
import secrets
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from millrace.master.operator.arguments import parser
from millrace.master.operator.config_file import KeysRefused, found, readable_secrets, write_keys
from millrace.relay.config.model import Config
from millrace.relay.config.parse import parse, parse_all, secrets_in, show


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one subcommand. Returns the exit status: 0, or 1 for a refusal; wrong arguments exit with 2."""
    arguments_parser = parser()
    if "_ARGCOMPLETE" in os.environ:
        # A shell asks what could come next.
        import argcomplete

        argcomplete.autocomplete(arguments_parser)
    chosen = arguments_parser.parse_args(arguments)
    for key in secrets_in(getattr(chosen, "set", [])):
        why = f"--set {key} shows a secret to every user of this machine (ps)"
        print(f"millrace: {why}; set it in a file that only the server may read (--config)", file=sys.stderr)
    match chosen.command:
        case "serve":
            return _serve(chosen)
        case "check":
            return _check(chosen.file, chosen.json)
        case "token":
            return _token(chosen)
        case "status":
            return _status(chosen)
        case "rooms" | "sessions" | "kick" | "move" | "drain":
            return _ask_server(chosen)
        case "completion":
            print(completion(chosen.shell), end="")
            return 0
        case "doctor":
            return _doctor(chosen)
        case "bench":
            return _bench(chosen)
        case _:
            return _keys(chosen.write)


def _serve(chosen: argparse.Namespace) -> int:
    # Imported here only, so that the other subcommands answer at once.
    from millrace.master.master import serve
    from millrace.master.start.daemon import PID_FILE, PidFileRefused, held, launch
    from millrace.master.start.startup import LaterStartup, QuietStartup, Startup
    from millrace.master.start.streams import open_streams
    from millrace.master.takeover.reexec import this_executable
    from millrace.master.upgrade import INHERITED, rehearse

    # Before anything is opened.
    open_streams()
    executable = this_executable()
    executable.pass_on_all_but((INHERITED, PID_FILE))
    overrides = chosen.set + ([f"workers.count={chosen.workers}"] if chosen.workers is not None else [])
    # A daemon runs in another working directory.
    file = chosen.config.absolute() if chosen.config else found()
    pid_file = chosen.pid_file and chosen.pid_file.absolute()
    config = _read(file, overrides)
    if config is not None and chosen.https:
        demo = _demo(config)
        if demo is None:
            return 1
        overrides = overrides + demo
        config = _read(file, overrides)
    if config is None:
        return 1
    if file is not None and chosen.config is None and executable.passed is None:
        print(f"millrace: the configuration is {file}", file=sys.stderr)
    if executable.is_rehearsal:
        return rehearse(config, executable)

    def run(startup: Startup) -> int:
        with held(pid_file, executable):
            return serve(config, lambda: _load(file, overrides), startup, executable)

    if chosen.daemon:
        for key, path in relative_paths(config):
            return _refuse(f"{key}: {path} has to be an absolute path, as a daemon runs in /")
    try:
        if executable.passed is not None:
            if chosen.daemon:
                os.chdir("/")
            return run(LaterStartup())
        if chosen.daemon:
            return launch(config.log.file, run)
        return run(QuietStartup() if config.log.file else Startup())
    except PidFileRefused as refusal:
        return _refuse(str(refusal))


def relative_paths(config: Config) -> list[tuple[str, str]]:
    """Returns the keys whose paths depend on the working directory, with the paths."""
    paths = {
        "http.certificate": config.http.certificate,
        "http.key": config.http.key,
        "dtls.certificate": config.dtls.certificate,
        "dtls.key": config.dtls.key,
        "runtime.directory": config.runtime.directory,
    }
    return [(key, path) for key, path in paths.items() if path and not Path(path).is_absolute()]


def _check(file: Path, as_json: bool) -> int:
    from millrace.master.operator.check import outside

    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        if as_json:
            print(json.dumps([{"key": None, "text": _unreadable(file, error)}]))
            return 1
        return _refuse(_unreadable(file, error))
    config, problems = parse_all(text)
    said = [*map(str, problems), *outside(config)]
    if as_json:
        print(json.dumps([{"key": each.partition(": ")[0], "text": each} for each in said]))
        return 1 if said else 0
    for problem in said:
        print(f"{file}: {problem}", file=sys.stderr)
    if (warning := readable_secrets(file, _has_secrets(config))) is not None:
        print(f"millrace: {warning}", file=sys.stderr)
    if not said:
        print(f"{file}: no problems")
    return 1 if said else 0


def _has_secrets(config: Config) -> bool:
    return bool(config.auth.keys) or any(server.credential or server.secret for server in config.ice.servers)


def _token(chosen: argparse.Namespace) -> int:
    config = _config(chosen, [])
    if config is not None and chosen.https:
        demo = _demo(config)
        config = None if demo is None else _config(chosen, demo)
    if config is None:
        return 1
    if not config.auth.keys:
        return _refuse(
            "no keys are configured, so the server takes no token of its own; `millrace keys` makes a key pair"
        )
    key = chosen.key or next(iter(config.auth.keys))
    if key not in config.auth.keys:
        return _refuse(f"auth.keys has no key {key}")
    if chosen.ttl <= 0:
        return _refuse(f"--ttl: found {chosen.ttl}, expected a number of seconds above zero")
    # Imported here only, as no other subcommand needs it.
    from millrace.master.operator.link import EXPECTED, link
    from millrace.relay.access.grants import make_token
    from millrace.relay.config.names import NAME_EXPECTED, is_name, is_room_name

    if not is_room_name(chosen.room):
        return _refuse(f"--room: found {show(chosen.room)}, expected {NAME_EXPECTED}, and not . or ..")
    if not is_name(chosen.identity):
        return _refuse(f"--identity: found {show(chosen.identity)}, expected {NAME_EXPECTED}")

    both = not (chosen.publish or chosen.subscribe)
    can_publish = chosen.publish or both
    token = make_token(
        key,
        config.auth.keys[key],
        identity=chosen.identity,
        room=chosen.room,
        expires_at=time.time() + chosen.ttl,
        can_publish=can_publish,
        can_subscribe=chosen.subscribe or both,
    )
    printed = token if chosen.link is None else link(chosen.link, chosen.room, token, can_publish)
    if printed is None:
        return _refuse(f"--link: found {show(chosen.link)}, expected {EXPECTED}")
    print(printed)
    return 0


def _demo(config: Config) -> list[str] | None:
    """Returns the settings of `--https`; None when there are none, and why has been printed."""
    from millrace.master.operator.demo import DemoRefused, folder, settings

    try:
        return settings(config, folder(os.environ), keys(), datetime.now(UTC))
    except DemoRefused as refusal:
        _refuse(str(refusal))
        return None


def _status(chosen: argparse.Namespace) -> int:
    config = _config(chosen, [])
    if config is None:
        return 1
    from millrace.master.operator.status import run
    from millrace.master.operator.status_table import as_json, table

    return run(_admin(chosen, config), chosen.once, chosen.json, as_json if chosen.json else table)


def _ask_server(chosen: argparse.Namespace) -> int:
    config = _config(chosen, [])
    if config is None:
        return 1
    from millrace.master.operator import move, rooms

    admin = _admin(chosen, config)
    match chosen.command:
        case "rooms":
            return rooms.rooms(admin, chosen.json)
        case "sessions":
            return rooms.sessions(admin, chosen.room, chosen.json)
        case "kick":
            return rooms.kick(admin, chosen.session)
        case "move":
            return move.move(admin, chosen.session, chosen.slot)
        case _:
            return move.drain(admin, chosen.slot, chosen.undo)


def completion(shell: str) -> str:
    """Returns the script by which a shell completes this command."""
    from argcomplete.shell_integration import shellcode

    script: str = shellcode(["millrace"], shell=shell)
    return script


def _admin(chosen: argparse.Namespace, config: Config) -> str:
    host = f"[{config.admin.bind}]" if ":" in config.admin.bind else config.admin.bind
    url: str = chosen.url or f"http://{host}:{config.admin.port}"
    return url.rstrip("/")


def _doctor(chosen: argparse.Namespace) -> int:
    config = _config(chosen, [])
    if config is None:
        return 1
    from millrace.master.operator.doctor import Finding, Verdict, examine

    findings = list(examine(config))
    if chosen.url:
        try:
            from millrace.master.operator.doctor_call import call
            from millrace.master.operator.doctor_paths import paths
        except ImportError:
            how = "not tried: it needs aiortc; `pip install '.[doctor]'` in the source tree brings it"
            findings.append(Finding(Verdict.POOR, "a call", how))
        else:
            findings += paths(chosen.url, config)
            findings.append(call(chosen.url, config))
    file = chosen.config or found()
    if file is not None and (warning := readable_secrets(file, _has_secrets(config))) is not None:
        findings.append(Finding(Verdict.POOR, "configuration", warning))
    if chosen.json:
        print(json.dumps([{"verdict": each.verdict, "what": each.what, "detail": each.detail} for each in findings]))
    else:
        for finding in findings:
            print(f"{finding.verdict:<5} {finding.what}: {finding.detail}")
    return 1 if any(finding.verdict is Verdict.BAD for finding in findings) else 0


def _bench(chosen: argparse.Namespace) -> int:
    config = _config(chosen, [])
    if config is None:
        return 1
    from millrace.master.operator.bench import Refused, run

    try:
        run(config, chosen.arguments)
    except Refused as refused:
        return _refuse(str(refused))
    return 0


def keys() -> str:
    """Returns a new key pair, as the configuration takes it."""
    # 256 bits, as RFC 7518 section 3.2 asks of HS256.
    return f'[auth]\nkeys = {{ key{secrets.token_hex(6)} = "{secrets.token_urlsafe(32)}" }}\n'


def _keys(file: Path | None) -> int:
    if file is None:
        print(keys(), end="")
        return 0
    try:
        write_keys(file, keys())
    except KeysRefused as refusal:
        return _refuse(str(refusal))
    print(f"{file} has a new key pair")
    return 0


def _config(chosen: argparse.Namespace, overrides: list[str]) -> Config | None:
    return _read(chosen.config or found(), [*chosen.set, *overrides])


def _read(file: Path | None, overrides: list[str]) -> Config | None:
    """Returns the configuration; None when it has problems, which have been printed."""
    loaded = _load(file, overrides)
    if isinstance(loaded, Config):
        return loaded
    for problem in loaded:
        print(problem, file=sys.stderr)
    return None


def _load(file: Path | None, overrides: list[str]) -> Config | tuple[str, ...]:
    """Returns the configuration, or all problems, each as a line that says where it comes from."""
    try:
        text = file.read_text() if file else ""
    except (OSError, UnicodeDecodeError) as error:
        return (f"millrace: {_unreadable(file, error)}",)
    parsed = parse(text, overrides)
    if isinstance(parsed, Config):
        return parsed
    # A problem that is there without the command line's settings, too, is the file's.
    without = parse(text)
    of_file = () if isinstance(without, Config) else without
    return tuple(f"{file if problem in of_file else 'command line'}: {problem}" for problem in parsed)


def _unreadable(file: Path | None, error: OSError | UnicodeDecodeError) -> str:
    return f"{file} cannot be read: {getattr(error, 'strerror', None) or error}"


def _refuse(why: str) -> int:
    print(f"millrace: {why}", file=sys.stderr)
    return 1
