"""The man page says what the command says. Its layout is that of the Python that has made it."""

import argparse
from pathlib import Path

from millrace.master.operator.arguments import parser

PAGE = Path(__file__).parents[4] / "deploy" / "millrace.1"


def said(text: str) -> str:
    """The words alone: lines are broken where they please."""
    for markup in ("\\fR", "\\fB", "\\fI\\,", "\\/", "\\"):
        text = text.replace(markup, "")
    return " ".join(text.split())


def test_the_man_page_has_every_command_with_its_arguments() -> None:
    page = said(PAGE.read_text())
    (commands,) = [each for each in parser()._actions if isinstance(each, argparse._SubParsersAction)]
    assert len(commands.choices) > 10
    for choice in commands._choices_actions:
        assert f"millrace {choice.dest} {said(choice.help or '')}" in page, "`make man` writes it anew"
    for name, command in commands.choices.items():
        for argument in command._actions:
            if argument.help and "--help" not in argument.option_strings:
                shown = said(argument.help % {"default": argument.default, "prog": f"millrace {name}"})
                assert shown in page, f"{name}: `make man` writes it anew"
                assert all(option in page for option in argument.option_strings)
