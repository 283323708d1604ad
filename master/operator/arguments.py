"""The arguments of the `millrace` command, for each subcommand. It must never know what comes of them. Read next:
`master/operator/cli.py`, which reads them.
"""

import argparse
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    """Returns the command's arguments, of which the man page is made, too."""
    made = argparse.ArgumentParser("millrace", description="A WebRTC media relay: one box, one UDP port.")
    made.add_argument("--version", action="version", version=f"millrace {_version()}")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")

    serve = commands.add_parser(
        "serve", help="run the server until Ctrl-C (at once) or SIGTERM (when its sessions are over)"
    )
    serve.add_argument("--daemon", action="store_true", help="go to the background once all workers serve")
    serve.add_argument("--pid-file", type=Path, metavar="FILE", help="write the server's process id there")
    serve.add_argument("--workers", type=int, metavar="N", help="worker processes; the same as --set workers.count=N")

    serve.add_argument(
        "--https",
        action="store_true",
        help="for a demonstration on the local network: HTTPS with a certificate of its own, all addresses, and a key",
    )

    check = commands.add_parser(
        "check", help="print all problems of a configuration file and of the files that it names"
    )
    check.add_argument("file", type=Path, metavar="FILE")
    check.add_argument("--json", action="store_true", help="print the problems as a list of objects")

    token = commands.add_parser("token", help="make an access token with a key of the configuration")
    token.add_argument("--room", required=True, help="the only room that it opens")
    token.add_argument("--identity", required=True, help="the participant's name in the room")
    token.add_argument("--publish", action="store_true", help="may send; without --publish and --subscribe: both")
    token.add_argument("--subscribe", action="store_true", help="may receive")
    token.add_argument("--ttl", type=int, default=6 * 3600, metavar="SECONDS", help="until it expires (6 hours)")
    token.add_argument("--https", action="store_true", help="with the key that `millrace serve --https` has made")
    token.add_argument("--key", help="which key of auth.keys; by default the first")
    token.add_argument(
        "--link",
        metavar="URL",
        help="print a link with the token for a browser, to the server at URL (https://box.example)",
    )

    pair = commands.add_parser("keys", help="make a key pair for the section [auth] of the configuration")
    pair.add_argument("--write", type=Path, metavar="FILE", help="add it to this file, which only its owner then reads")

    status = commands.add_parser("status", help="show a running server: its workers, its rooms")
    status.add_argument("--url", help="its administration address; by default that of the configuration")
    status.add_argument("--once", action="store_true", help="print one table instead of a live one")
    status.add_argument("--json", action="store_true", help="print a line of JSON each second; with --once, one")

    rooms = commands.add_parser("rooms", help="list the open rooms of a running server")
    sessions = commands.add_parser("sessions", help="list the sessions of a room")
    sessions.add_argument("room", metavar="ROOM", help="its name")
    for each in (rooms, sessions):
        each.add_argument("--json", action="store_true", help="print what the administration address answers")
    kick = commands.add_parser("kick", help="close a session; its client gets a goodbye")
    kick.add_argument("session", metavar="SESSION", help="its id, as `millrace sessions ROOM` lists it")

    move = commands.add_parser("move", help="move a session to another worker, unnoticed by its client")
    move.add_argument("session", metavar="SESSION", help="its id, as the administration address lists it")
    move.add_argument("slot", type=int, metavar="SLOT", help="the number of the other worker")
    drain = commands.add_parser("drain", help="move all sessions of a worker to the others, and have it take none")
    drain.add_argument("slot", type=int, metavar="SLOT", help="the number of the worker")
    drain.add_argument("--undo", action="store_true", help="let it take sessions again")
    for each in (rooms, sessions, kick, move, drain):
        each.add_argument("--url", help="the server's administration address; by default that of the configuration")

    doctor = commands.add_parser("doctor", help="look for problems of this machine or its configuration")
    doctor.add_argument("--json", action="store_true", help="print the findings as a list of objects")
    doctor.add_argument(
        "--url", help="of a running server: does UDP, TCP, TURN lead there, and a real call (needs the extra `doctor`)"
    )

    shell = commands.add_parser("completion", help="print what a shell needs to complete this command")
    shell.add_argument("shell", choices=("bash", "zsh", "fish"), help="such as: source <(millrace completion bash)")

    bench = commands.add_parser("bench", help="measure the running server, with the load generator of the source tree")
    for each in (serve, token, status, rooms, sessions, kick, move, drain, doctor, bench):
        each.add_argument(
            "--config",
            type=Path,
            metavar="FILE",
            help="TOML; by default ./millrace.toml or /etc/millrace/millrace.toml, if there is one",
        )
        each.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="wins over the file")
    bench.add_argument(
        "arguments",
        nargs=argparse.REMAINDER,
        metavar="SCENARIO ...",
        help="of the load generator; `millrace bench video --help` lists them",
    )
    return made


def _version() -> str:
    try:
        return version("millrace")
    except PackageNotFoundError:
        return "(not installed)"
