"""Commands of plugins are plain functions with typer annotations."""

from __future__ import annotations

import re

COMMAND = """
from typing import Annotated
import typer
from trilemma.errors import TrilemmaError
from trilemma.registry import CommandSpec, hookimpl

@hookimpl
def trilemma_register(registry):
    registry.command(CommandSpec(name="{name}", target="{module}:greet", summary="Greet someone."))

def greet(
    who: Annotated[str, typer.Argument(help="Whom.")],
    times: Annotated[int, typer.Option(help="How often.")] = 1,
    loud: bool = False,
) -> None:
    if who == "nobody":
        raise TrilemmaError("there is nobody; name someone")
    print(("HELLO " if loud else "hello ") * times + who)
"""


def test_a_plugin_s_command_runs_and_is_listed(site):
    site.install("greeter", COMMAND.format(name="greet", module="greeter"))
    assert re.search(r"^  greet +Greet someone\.$", site.trilemma("--help").stdout, re.M)
    assert "How often." in site.trilemma("greet", "--help").stdout
    assert site.trilemma("greet", "you", "--times", "2", "--loud").stdout == "HELLO HELLO you\n"
    assert site.trilemma("greet", "you").stdout == "hello you\n"
    refused = site.trilemma("greet", "nobody")
    assert (refused.returncode, refused.stderr) == (1, "error: there is nobody; name someone\n")
    usage = site.trilemma("greet")
    assert usage.returncode == 2
    assert usage.stderr.count("\n") == 1


def test_two_commands_of_one_name_must_be_qualified(site):
    for module in ("one", "two"):
        site.install(module, COMMAND.format(name="greet", module=module))
    assert "two/greet" in site.trilemma("--help").stdout
    assert site.trilemma("two/greet", "you").stdout == "hello you\n"
    refused = site.trilemma("greet", "you")
    assert refused.returncode == 2
    assert refused.stderr == "error: command 'greet' is in 2 distributions; write one/greet or two/greet\n"


def test_a_command_whose_module_is_missing_is_unavailable(site):
    site.install("gone", COMMAND.format(name="gone", module="nowhere"))
    assert site.trilemma("--help").returncode == 0
    assert site.trilemma("gone").returncode == 3


def test_a_left_out_plugin_s_command_is_gone_from_the_help(site):
    site.install("greeter", COMMAND.format(name="greet", module="greeter"))
    assert "greet" not in site.trilemma("--no-plugin", "greeter", "--help").stdout.replace("greeter", "")
