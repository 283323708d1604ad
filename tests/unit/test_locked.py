"""What pyproject.toml asks for is bounded, and what is installed for work and CI is pinned to the byte."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

TREE = Path(__file__).parents[2]
PROJECT = tomllib.loads((TREE / "pyproject.toml").read_text())
GROUPS = PROJECT["dependency-groups"]
RUN = [*PROJECT["project"]["dependencies"], *GROUPS["build"]]
DEV = [*RUN, *GROUPS["work"]]
EXTRAS = [text for extra in PROJECT["project"]["optional-dependencies"].values() for text in extra]


def pins(name: str) -> dict[str, str]:
    """Versions by package. A pin without a hash is none."""
    text = (TREE / "requirements" / name).read_text()
    found = re.findall(r"^([\w.-]+)==([^\s;]+)[^\\\n]*\\\n +--hash=sha256:[0-9a-f]{64}", text, re.MULTILINE)
    return {canonicalize_name(package): version for package, version in found}


@pytest.mark.parametrize("text", sorted({*DEV, *EXTRAS, *PROJECT["build-system"]["requires"]}))
def test_every_requirement_has_a_lower_and_an_upper_bound(text: str) -> None:
    operators = {one.operator for one in Requirement(text).specifier}
    assert operators & {">=", "~="}
    assert operators & {"<", "~="}


@pytest.mark.parametrize(("name", "texts"), [("run.txt", RUN), ("dev.txt", [*DEV, *EXTRAS])])
def test_the_lock_has_what_pyproject_asks_for(name: str, texts: list[str]) -> None:
    pinned = pins(name)
    for requirement in map(Requirement, texts):
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is not in {name}: run `make lock`"
        assert requirement.specifier.contains(version), f"{requirement}, but {name} has {version}: run `make lock`"


def test_a_relay_runs_with_what_was_tested() -> None:
    assert pins("run.txt").items() <= pins("dev.txt").items()


@pytest.mark.parametrize("name", ["run.txt", "dev.txt"])
def test_a_lock_names_no_place_to_fetch_from_and_nothing_without_a_hash(name: str) -> None:
    text = (TREE / "requirements" / name).read_text()
    assert "://" not in text
    assert "--index-url" not in text
    assert len(pins(name)) == len(re.findall(r"^[\w.-]+", text, re.MULTILINE))
