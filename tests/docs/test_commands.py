"""Every command that a page names, run or not, fits the command line: subcommand, options, their values."""

from __future__ import annotations

import re
import shlex

import pytest
import typer
from documentation.blocks import ROOT, Step, inline_commands, pages, steps

from trilemma import registry as plugins
from trilemma.cli.app import app

EXAMPLES = ROOT / "examples"
# Placeholders for a number in sentences, such as `-n N`.
NUMBERS = {"N": "1", "NFE": "1", "SEED": "0"}


def asked(page: str) -> list[Step]:
    found = [*(step for step in steps(page) if step.kind == "command"), *inline_commands(page)]
    return [step for step in found if step.text.startswith("trilemma ") and not of_an_example(step.text)]


def of_an_example(line: str) -> bool:
    """Says whether a distribution in examples/, which is not installed, brings the subcommand."""
    command = re.compile(rf'CommandSpec\(\s*"{re.escape(line.split()[1])}"')
    return any(command.search(path.read_text()) for path in EXAMPLES.glob("*/*/__init__.py"))


def is_a_name(line: str) -> bool:
    """Says whether a sentence names a command by itself, such as `trilemma eval`."""
    return " -" not in line and not any(letter.isupper() for letter in line)


NAMED = [page for page in pages() if asked(page)]


def refusal(line: str) -> str:
    """Returns what the command line has against a line; "" where it takes it."""
    words = [NUMBERS.get(word, word) for word in shlex.split(line)[1:]]
    try:
        group = typer.main.get_command(app)
        context = group.make_context("trilemma", words)
        while rest := [*context._protected_args, *context.args]:
            name, command, rest = group.resolve_command(context, rest)
            context = command.make_context(name, list(rest), parent=context)
            if not hasattr(command, "resolve_command"):
                return ""
            group = command
    except typer.Exit:
        return ""
    except Exception as error:
        return error.format_message() if hasattr(error, "format_message") else repr(error)
    return ""


@pytest.mark.parametrize("page", NAMED)
def test_the_commands_of_a_page_fit(page):
    refused = {step.place: f"{step.text}: {why}" for step in asked(page) if (why := refusal(step.text))}
    names = [step.place for step in inline_commands(page) if is_a_name(step.text)]
    assert not {
        place: why for place, why in refused.items() if place not in names or "Missing argument" not in why
    }


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("trilemma sample mnist --stepz 3", "--stepz"),
        ("trilemma sample mnist --steps many", "--steps"),
        ("trilemma draw mnist", "draw"),
        ("trilemma plugins shew ddim", "shew"),
        ("trilemma train", "RECIPE"),
    ],
)
def test_what_does_not_fit_is_seen(line, why):
    assert why.lower() in refusal(line).lower()


def test_inline_commands_are_found():
    assert sum(len(list(inline_commands(page))) for page in pages()) > 8
    assert plugins.catalog().components("command")
