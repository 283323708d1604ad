"""`millrace bench`: execs the load generator with the URLs, the metrics address and the master's process id of the
server that runs with this configuration, and with a token if it asks for one. It must never measure anything itself.
Read next: `tests/load/README.md`, which says what is measured.
"""

import os
import secrets
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from millrace.master.takeover.runtime_directory import running_master
from millrace.relay.access.grants import make_token
from millrace.relay.config.model import Config

_PROGRAM = "millrace-load"
_BUILT = Path(__file__).resolve().parents[2] / "tests" / "load" / "target" / "release" / _PROGRAM
_TOKEN_SECONDS = 6 * 3600.0
"""How long the token lasts: longer than any run."""


class Refused(Exception):
    """The load generator cannot be started; the text says why."""


def command(config: Config, arguments: Sequence[str]) -> list[str]:
    """Returns the command line of the load generator. Raises Refused."""
    program = _BUILT if _BUILT.is_file() else shutil.which(_PROGRAM)
    if program is None:
        raise Refused(f"{_PROGRAM} is not built: cargo build --release --manifest-path tests/load/Cargo.toml")
    master = running_master(config)
    if master is None:
        raise Refused("no server runs with this configuration on this machine")
    base = f"http://{_reachable(config.http.bind[0])}:{config.http.port}"
    metrics = f"http://{_reachable(config.admin.bind)}:{config.admin.port}/metrics"
    where = ["--metrics", metrics, "--pid", str(master)]
    if not config.auth.keys:
        room = "{room}"
    else:
        # A token opens one room, so there is one publisher: too few for meeting, rooms, kills and several --publishers.
        room = f"bench-{secrets.token_hex(4)}"
        key, secret = next(iter(config.auth.keys.items()))
        expires_at = time.time() + _TOKEN_SECONDS
        token = make_token(
            key, secret, identity="bench", room=room, expires_at=expires_at, can_publish=True, can_subscribe=True
        )
        where += ["--token", token]
    return [str(program), *arguments, "--whip", f"{base}/whip/{room}", "--whep", f"{base}/whep/{room}", *where]


def run(config: Config, arguments: Sequence[str]) -> None:
    """Replaces this process with the load generator. Raises Refused."""
    words = command(config, arguments)
    os.execv(words[0], words)


def _reachable(address: str) -> str:
    """Returns an address to connect to for a bound one, which may be a wildcard."""
    match address:
        case "0.0.0.0":
            return "127.0.0.1"
        case "::":
            return "[::1]"
        case _:
            return f"[{address}]" if ":" in address else address
