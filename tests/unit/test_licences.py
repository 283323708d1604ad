"""Which licences `make lint` lets in."""

from email.message import Message

import pytest

from scripts.licences import Expression, Package, problem, python_licence

ALLOWED = {"MIT", "ISC", "Apache-2.0 WITH LLVM-exception"}


@pytest.mark.parametrize(
    "text",
    [
        "MIT",
        "GPL-3.0 OR MIT",
        "MIT OR GPL-3.0",
        "GPL-3.0/MIT",
        "MIT AND ISC",
        "(GPL-3.0 OR MIT) AND ISC",
        "(GPL-3.0 AND MIT) OR ISC",
        "GPL-3.0 AND X OR MIT",
        "Apache-2.0 WITH LLVM-exception",
    ],
)
def test_an_expression_is_met_by_what_is_allowed(text: str) -> None:
    assert Expression(text).is_met(ALLOWED)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "MIT AND (GPL-3.0 OR X)",
        "Apache-2.0",
        "MIT WITH X",
        "(MIT",
        "MIT ISC",
        "MIT OR",
    ],
)
def test_an_expression_is_not_met_by_less_nor_by_a_guess(text: str) -> None:
    assert not Expression(text).is_met(ALLOWED)


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ([("License-Expression", "MIT OR ISC"), ("License", "something else")], "MIT OR ISC"),
        ([("License", "Apache 2.0")], "Apache-2.0"),
        ([("License", "the\nwhole text"), ("Classifier", "License :: OSI Approved :: MIT License")], "MIT"),
        ([("Classifier", "License :: OSI Approved :: GPL"), ("Classifier", "Topic :: X :: Y")], "GPL"),
        ([], ""),
    ],
)
def test_a_python_package_says_its_licence_in_three_ways(fields: list[tuple[str, str]], licence: str) -> None:
    metadata = Message()
    for name, value in fields:
        metadata[name] = value
    assert python_licence(metadata) == licence


def test_copyleft_is_for_tools_only() -> None:
    assert problem(Package("hypothesis", "MPL-2.0")) == ""
    assert problem(Package("aiohttp", "MPL-2.0")) != ""


def test_a_crate_comes_from_a_registry() -> None:
    assert problem(Package("serde", "MIT", "registry+somewhere")) == ""
    assert "comes from git+somewhere" in problem(Package("serde", "MIT", "git+somewhere"))
