"""Programs of releases that upgrades are tried with: of a kept commit, and of a release that is still to come. Owns how
they are made and installed; must never start a relay. Read next: `tests/system/test_releases.py`.

A kept release is a commit: its files come out of the repository, and its engine is compiled from them once, beside this
tree's, so that only the engine's own crates are. `tests/artifacts/releases` has what is built.
"""

import ast
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.system.relay_process import ROOT

KEPT = "30d3f5efa015ad36925c51d6e40ac2b1dd630078"
"""The commit of the release that this tree is upgraded from, and goes back to (CONTRIBUTING, Releases)."""

BUILT = ROOT / "tests" / "artifacts" / "releases"
TARGET = ROOT / "relay" / "engine" / "target"


def kept_release() -> Path:
    """Returns the folder with the package of the kept release. Raises AssertionError when its commit cannot be had."""
    BUILT.mkdir(parents=True, exist_ok=True)
    with _alone(BUILT / ".lock"):
        if not (BUILT / KEPT).exists():
            with tempfile.TemporaryDirectory(dir=BUILT) as made:
                _unpack_commit(KEPT, Path(made) / "tree")
                wheel = _build(Path(made) / "tree", Path(made) / "wheel")
                with zipfile.ZipFile(wheel) as packed:
                    packed.extractall(Path(made) / "program")
                (Path(made) / "program").rename(BUILT / KEPT)
    return BUILT / KEPT


def copy_of(release: Path, to: Path) -> Path:
    """A copy that can be changed, of a folder with the package."""
    leave = shutil.ignore_patterns("engine", "__pycache__")
    shutil.copytree(release / "millrace", to / "millrace", ignore=leave)
    return to


class Installation:
    """A folder with a package `millrace` that is one program now and another one later."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def put(self, program: Path) -> None:
        """Has it be this program from now on, in one step."""
        link = self.folder / "millrace.new"
        link.symlink_to(program / "millrace")
        link.rename(self.folder / "millrace")


def hold_workers(program: Path, gate: Path) -> None:
    """Workers of this program begin only when that file is gone."""
    with (program / "millrace" / "workers" / "main.py").open("a") as file:
        file.write(_HELD.format(gate=str(gate)))


_HELD = """

def run(boot: Boot, begin=run) -> int:
    import os
    while os.path.exists({gate!r}):
        time.sleep(0.01)
    return begin(boot)
"""


def make_later(program: Path) -> None:
    """Makes it the program of a release that is still to come: with more in every contract, of which it makes use."""
    package = program / "millrace"
    for file, names in _MORE_FIELDS.items():
        for name in names:
            _add_field(package / file, name, "mood: str = 'later'")
    _add_class(package / "relay/contract/facts.py", "Fact", "Mood", "room: str = 'hall'")
    _add_class(package / "relay/contract/rpc.py", "Rpc", "MoodAsked", "room: str = 'hall'")
    for file, old, new in _CHANGES:
        _change(package / file, old, new)


_CONTRACT = "relay/contract"
_MORE_FIELDS = {
    f"{_CONTRACT}/facts.py": ("ParticipantHere", "PublicationHere", "Load", "Envelope", "Snapshot"),
    f"{_CONTRACT}/inputs.py": ("Offered", "Patched", "Deleted", "EndsHeard"),
    f"{_CONTRACT}/tombstone.py": ("Tombstone",),
    f"{_CONTRACT}/effects.py": ("Reply",),
    f"{_CONTRACT}/takeover.py": ("Manifest",),
    "relay/session/record.py": ("RecordedStream",),
}
"""Dataclasses by file. What has a default in a record's own parts is not written, but within them it is."""
_CHANGES = (
    # A fact of a new kind stands in snapshots, and is announced each second.
    (
        "relay/ledger.py",
        "self.directory.own_facts())",
        "(_mood(), *self.directory.own_facts(), _mood()))",
    ),
    (
        "relay/ledger.py",
        "\n\nclass Ledger:",
        "\n\nfrom millrace.relay.contract.facts import Mood as _mood\n\n\nclass Ledger:",
    ),
    (
        "relay/control.py",
        "        ledger.announce(ledger.load())\n",
        "        ledger.announce(ledger.load())\n        ledger.announce(ledger.snapshot().facts[0])\n",
    ),
    # A call of a new kind goes out with each fact.
    (
        "workers/bus.py",
        "        self._facts_out.send(codec.pack_envelope(envelope), zmq.NOBLOCK)\n",
        "        self._facts_out.send(codec.pack_envelope(envelope), zmq.NOBLOCK)\n"
        "        from millrace.relay.contract.rpc import MoodAsked\n"
        "        for each in self._calls_out.values():\n"
        "            self._send(each, [UNANSWERED, codec.pack_rpc(MoodAsked())])\n",
    ),
    (
        "workers/bus.py",
        "            case SnapshotAsked():\n",
        "            case object(room='hall') if type(call).__name__ == 'MoodAsked':\n"
        "                pass\n"
        "            case SnapshotAsked():\n",
    ),
    # Both parts of a session record have one more field, which is written.
    (
        "relay/session/record.py",
        "    restarted_with: tuple[str, str] | None = None\n",
        "    restarted_with: tuple[str, str] | None = None\n    mood: str = ''\n",
    ),
    (
        "relay/session/record.py",
        "        session.restarted_with,\n    )",
        "        session.restarted_with,\n        'later',\n    )",
    ),
    (
        "relay/session/record.py",
        "    ssrcs: tuple[int, ...]\n",
        "    ssrcs: tuple[int, ...]\n    mood: str = ''\n",
    ),
    (
        "relay/session/record.py",
        "        ssrcs=session.ssrcs,\n    )",
        "        ssrcs=session.ssrcs,\n        mood='later',\n    )",
    ),
    # A master that begins anew leaves a descriptor more, and needs it when it has left one.
    (
        f"{_CONTRACT}/takeover.py",
        "    def own_names(self) -> Iterator[str]:\n",
        "    def own_names(self) -> Iterator[str]:\n"
        "        yield from self._own_names()\n"
        "        if self.mood == 'mine':\n"
        "            yield 'mood'\n"
        "\n"
        "    def _own_names(self) -> Iterator[str]:\n",
    ),
    (f"{_CONTRACT}/takeover.py", '{"estate": VERSION,', '{"mood": 1, "estate": VERSION,'),
    (
        "master/start/prepare.py",
        "        started_at=time.time(),\n",
        "        started_at=time.time(),\n        mood='mine',\n",
    ),
    (
        "master/start/prepare.py",
        "    eligible = EligibleSlots.fresh(",
        "    descriptors.append(os.eventfd(0, os.EFD_CLOEXEC))\n    eligible = EligibleSlots.fresh(",
    ),
)
"""File, what stands there, and what a later release has there."""


def _unpack_commit(commit: str, to: Path) -> None:
    made = subprocess.run(["git", "-C", ROOT, "archive", commit], capture_output=True, check=False)
    assert made.returncode == 0, (
        f"the kept release {commit} is not in this clone, so no upgrade from it can be tried: clone the repository "
        f"with its whole history, or call `git fetch --unshallow` ({made.stderr.decode().strip()})"
    )
    with tempfile.TemporaryFile() as archive:
        archive.write(made.stdout)
        archive.seek(0)
        with tarfile.open(fileobj=archive) as opened:
            opened.extractall(to, filter="data")


def _build(tree: Path, to: Path) -> Path:
    """The package as a wheel."""
    maturin = Path(sys.executable).with_name("maturin")
    # It stays on this machine, with the libraries that are there.
    options = ("--release", "--locked", "--quiet", "--auditwheel", "skip")
    subprocess.run(
        [maturin, "build", *options, "--interpreter", sys.executable, "--out", to],
        cwd=tree,
        env=os.environ | {"CARGO_TARGET_DIR": str(TARGET)},
        check=True,
    )
    (wheel,) = to.iterdir()
    return wheel


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Two tests that want the same release build it once."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1, f"{file.name} has {text.count(old)} times what a later release would change: {old!r}"
    file.write_text(text.replace(old, new))


def _add_field(file: Path, name: str, field: str) -> None:
    lines = file.read_text().splitlines()
    classes = (node for node in ast.parse("\n".join(lines)).body if isinstance(node, ast.ClassDef))
    body = next(node for node in classes if node.name == name).body
    last = max(number for number, node in enumerate(body) if isinstance(node, ast.AnnAssign))
    # Its docstring may follow it.
    is_documented = last + 1 < len(body) and isinstance(body[last + 1], ast.Expr)
    lines.insert(body[last + is_documented].end_lineno or 0, f"    {field}")
    file.write_text("\n".join(lines) + "\n")


def _add_class(file: Path, union: str, name: str, field: str) -> None:
    text = file.read_text()
    added = f"@dataclass(frozen=True, slots=True)\nclass {name}:\n    {field}\n\n\n{union} = {name} | "
    text, times = re.subn(rf"^{union} = ", added, text, flags=re.MULTILINE)
    assert times == 1, f"{file.name} has {times} unions {union}"
    file.write_text(text)
