"""Fails when something that Millrace is built, run or tested with has a licence that is not listed here.

It owns that list and reads what Cargo, pip and npm know of each package, without a network. It must never judge
versions: advisories are `make audit`'s. Read next: `lint` in the Makefile.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageMetadata, distributions
from pathlib import Path

TREE = Path(__file__).parent.parent
WORKSPACES = ("relay/engine", "relay/engine/fuzz", "tests/load")
NODE_FOLDERS = ("tests/browser", "tests/clients/libdatachannel")
REGISTRY = "registry+"
"""How the source of a crate from a registry begins. Others (git) have no checksum in Cargo.lock."""

ALLOWED = {
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "MIT-0",
    "NCSA",
    "PSF-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
}
"""SPDX names. All let a binary be given away with a notice."""

ONLY_TOOLS = {
    "@node-datachannel": "MPL-2.0",
    "axe-core": "MPL-2.0",
    "hypothesis": "MPL-2.0",
    "node-datachannel": "MPL-2.0",
    "pathspec": "MPL-2.0",
}
"""Licences that bind whoever changes a package's own files, by package or npm scope. These are part of nothing that is
given away."""

SPDX_BY_TEXT = {
    "apache 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd 2-clause license": "BSD-2-Clause",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "mpl 2.0": "MPL-2.0",
}
"""What older Python packages, and some of npm, say instead."""


@dataclass(frozen=True)
class Package:
    """One that Millrace needs."""

    name: str
    licence: str
    """An SPDX expression; empty when none is known."""
    source: str = REGISTRY
    """Where Cargo has it from."""


class Expression:
    """An SPDX expression. AND binds more than OR, and `/` is how OR was once written."""

    def __init__(self, text: str) -> None:
        self._tokens = re.findall(r"[()]|[^\s()]+", text.replace("/", " OR "))[::-1]
        """The next one is the last."""

    def is_met(self, allowed: set[str]) -> bool:
        """True when `allowed` has enough of its licences. What is no expression is not met."""
        try:
            return self._any_of(allowed) and not self._tokens
        except IndexError:
            return False

    def _takes(self, token: str) -> bool:
        if self._tokens[-1:] != [token]:
            return False
        self._tokens.pop()
        return True

    def _any_of(self, allowed: set[str]) -> bool:
        met = self._all_of(allowed)
        while self._takes("OR"):
            # Parsed in any case.
            met = self._all_of(allowed) or met
        return met

    def _all_of(self, allowed: set[str]) -> bool:
        met = self._one(allowed)
        while self._takes("AND"):
            met = self._one(allowed) and met
        return met

    def _one(self, allowed: set[str]) -> bool:
        if self._takes("("):
            met = self._any_of(allowed)
            return self._takes(")") and met
        name = self._tokens.pop()
        if self._takes("WITH"):
            name = f"{name} WITH {self._tokens.pop()}"
        return name in allowed


def crates(workspace: str) -> Iterator[Package]:
    """Of Cargo.lock, for Linux: other systems' crates are compiled nowhere."""
    command = ["cargo", "metadata", "--locked", "--format-version", "1"]
    command += ["--filter-platform", "x86_64-unknown-linux-gnu", "--manifest-path", f"{TREE / workspace}/Cargo.toml"]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    for package in json.loads(answer)["packages"]:
        # What has no source is ours.
        if package["source"] is not None:
            yield Package(package["name"], package["license"] or "", package["source"])


def python_licence(metadata: PackageMetadata) -> str:
    """SPDX where the package says so; else its one-line licence, else what its classifiers name."""
    if "License-Expression" in metadata:
        return metadata["License-Expression"]
    classifiers = [
        text.rsplit(" :: ", 1)[1] for text in metadata.get_all("Classifier") or () if ":: OSI Approved ::" in text
    ]
    text = (metadata.get_all("License") or [""])[0]
    texts = classifiers if not text or "\n" in text else [text]
    return " AND ".join(SPDX_BY_TEXT.get(text.lower(), text) for text in texts)


def python_packages() -> Iterator[Package]:
    """All of the environment that this runs in, pip's own included."""
    for one in distributions():
        yield Package(one.name, python_licence(one.metadata))


def npm_packages(lock: Path) -> Iterator[Package]:
    """Of a package-lock.json, but for the package that it locks."""
    for path, package in json.loads(lock.read_text())["packages"].items():
        if path:
            licence = package.get("license", "")
            yield Package(path.removeprefix("node_modules/"), SPDX_BY_TEXT.get(licence.lower(), licence))


def problem(package: Package) -> str:
    """What is wrong with a package; empty when nothing is."""
    if not package.source.startswith(REGISTRY):
        return f"{package.name}: comes from {package.source}, expected a registry, whose crates have checksums"
    tool = ONLY_TOOLS.get(package.name.partition("/")[0])
    if Expression(package.licence).is_met(ALLOWED | {tool} if tool else ALLOWED):
        return ""
    return f"{package.name}: licence {package.licence or 'unknown'} is not one that {Path(__file__).name} allows"


def main() -> int:
    """Prints a line for each problem, and one with what was looked at."""
    looked_at = {
        "crates": {crate for workspace in WORKSPACES for crate in crates(workspace)},
        "Python packages": set(python_packages()),
        "npm packages": {
            package for folder in NODE_FOLDERS for package in npm_packages(TREE / folder / "package-lock.json")
        },
    }
    problems = sorted(filter(None, (problem(package) for packages in looked_at.values() for package in packages)))
    print(*problems, sep="\n", end="\n" if problems else "")
    print("Licences of", ", ".join(f"{len(packages)} {kind}" for kind, packages in looked_at.items()))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
