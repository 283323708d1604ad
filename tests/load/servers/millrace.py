"""Starts a Millrace of this working tree for the load generator, on ports of its own, and stops it when standard input
is closed. Must never measure anything. Read `../src/target.rs` for the contract.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[3]
START_SECONDS = 30.0


def main() -> int:
    """Runs the relay; returns its exit status."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--name", default="millrace")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    chosen = parser.parse_args()
    http, admin = free_port(socket.SOCK_STREAM), free_port(socket.SOCK_STREAM)
    settings = {
        "http.port": http,
        "admin.port": admin,
        "media.port": free_port(socket.SOCK_DGRAM),
        "log.level": '"warning"',
        "limits.sessions_per_worker": 20_000,
        "arena.sessions_per_slot": 32_768,
    }
    with tempfile.TemporaryDirectory(prefix="millrace-load-") as folder:
        settings["runtime.directory"] = f'"{folder}/run"'
        arguments = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        arguments += [word for text in chosen.set for word in ("--set", text)]
        command = [sys.executable, "-m", "millrace.master", "serve", "--workers", str(chosen.workers), *arguments]
        # A session of its own: a Ctrl-C in the terminal comes to it through us, once.
        relay = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=sys.stderr, start_new_session=True)
        try:
            if wait_until_ready(relay, f"http://127.0.0.1:{admin}/readyz?all"):
                base = f"http://127.0.0.1:{http}"
                url = f"whip={base}/whip/{{room}} whep={base}/whep/{{room}}"
                url += f" metrics=http://127.0.0.1:{admin}/metrics"
                print(f"ready name={chosen.name} {url} pid={relay.pid}", flush=True)
                sys.stdin.read()
        except KeyboardInterrupt:
            pass
        finally:
            if relay.poll() is None:
                os.killpg(relay.pid, signal.SIGINT)
        return relay.wait()


def wait_until_ready(relay: "subprocess.Popen[bytes]", url: str) -> bool:
    """True when the relay's workers all answer; False when it ended."""
    end = time.monotonic() + START_SECONDS
    while relay.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:
                if answer.status == 200:
                    return True
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.05)
    return False


def free_port(kind: socket.SocketKind) -> int:
    """A port that nobody has right now, on both families."""
    while True:
        with socket.socket(socket.AF_INET, kind) as four, socket.socket(socket.AF_INET6, kind) as six:
            four.bind(("127.0.0.1", 0))
            port: int = four.getsockname()[1]
            try:
                six.bind(("::1", port))
            except OSError:
                continue
            return port


if __name__ == "__main__":
    sys.exit(main())
