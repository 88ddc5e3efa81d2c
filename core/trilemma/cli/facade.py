"""The command line's group: its commands are components, imported when they run."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import typer
from typer.core import TyperGroup

from trilemma.cli.answer import alone_on_stdout
from trilemma.errors import nearest
from trilemma.registry import Component, catalog
from trilemma.registry.building import import_target


class Facade(TyperGroup):
    """Lists every registered command by its summary and imports the one that is called.

    Plugins hand in plain functions with typer annotations, and never see the library that typer is built on.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        return [component.address for component in catalog().components("command")]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        components = catalog().components("command")
        known = sorted({component.spec.name for component in components} | set(self.list_commands(ctx)))
        if cmd_name not in known:
            near = nearest(cmd_name, known)
            ctx.fail(
                f"no command {cmd_name!r}; " + (f"did you mean {near[0]!r}?" if near else "choose another")
            )
        return command_of(catalog().find("command", cmd_name))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes the section of the commands without importing any."""
        components = sorted(catalog().components("command"), key=lambda component: not component.built_in)
        with formatter.section("Commands"):
            formatter.write_dl([(component.address, component.spec.summary) for component in components])


def command_of(component: Component) -> Any:
    """Returns the command of a component whose target is a function, or a `typer.Typer` with its own."""
    target: Any = import_target(component)
    if not isinstance(target, typer.Typer):
        function, target = target, typer.Typer(add_completion=False, rich_markup_mode=None)
        help_text = inspect.getdoc(function) or component.spec.summary
        target.command(name=component.spec.name, help=help_text)(function)
    made = without_idle_validation(typer.main.get_command(target))
    return _with_json_alone(made) if component.built_in else made


def _with_json_alone(command: Any) -> Any:
    """The command, whose stdout holds nothing but its answer where that is asked for in JSON."""
    command.invoke = partial(_invoke, command.invoke)
    for child in getattr(command, "commands", {}).values():
        _with_json_alone(child)
    return command


def _invoke(invoke: Callable[[Any], Any], context: Any) -> Any:
    with alone_on_stdout() if context.params.get("as_json") else nullcontext():
        return invoke(context)


def without_idle_validation(command: Any) -> Any:
    """Returns the command; it leaves alone the options that were not given.

    typer validates even their None, and importing its validation takes longer than a light command does.
    """
    command.get_params = partial(_parameters, command.get_params)
    for child in getattr(command, "commands", {}).values():
        without_idle_validation(child)
    return command


def _parameters(get_params: Callable[[Any], list[Any]], context: Any) -> list[Any]:
    """Returns the parameters of the command, --help included, each made to skip a value that was not given."""
    parameters = get_params(context)
    for parameter in parameters:
        if not parameter.required and not isinstance(parameter.process_value, partial):
            parameter.process_value = partial(_process_value, parameter, parameter.process_value)
    return parameters


def _process_value(parameter: Any, process: Callable[[Any, Any], Any], context: Any, value: Any) -> Any:
    if value is not None:
        return process(context, value)
    missing = () if parameter.multiple or parameter.nargs == -1 else None
    return parameter.callback(context, parameter, missing) if parameter.callback else missing
