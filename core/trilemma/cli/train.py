"""`trilemma train`: train a model by a recipe or on a folder of images, or resume where a run stopped."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trilemma.cli.answer import print_json
from trilemma.cli.shared_options import Threads, use_threads
from trilemma.errors import UsageError

if TYPE_CHECKING:
    from trilemma.train.trainer import TrainingResult


def command(
    context: typer.Context,
    recipe: Annotated[Path, typer.Argument(help="Recipe in TOML, or a folder or zip of images.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a value of the recipe; repeatable."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run [default: runs/NAME].")] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="MODEL", help="Begin with the weights of a model (fine-tuning)."),
    ] = None,
    from_checkpoint: Annotated[
        Path | None,
        typer.Option(help="Begin a new run at a checkpoint of another one, or at the newest in its folder."),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Of images: how long the training may take [default: 30].")
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Of images: side that they are resized to [default: by theirs].")
    ] = None,
    threads: Threads = 0,
    progress: Annotated[bool, typer.Option(help="Show a progress bar on stderr.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a model by RECIPE; a run that was stopped resumes from its last checkpoint.

    Given a folder or zip of images, it writes a recipe for them into the folder of the run first, see `new-recipe`;
    called again, it goes on by that recipe. Ctrl-C ends a run after a step, with a checkpoint; a second one at once.
    """
    from trilemma.train.recipe import read_recipe
    from trilemma.train.stages import read_stages, train_stages
    from trilemma.train.suggestion import is_data, recipe_for

    use_threads(threads)
    if is_data(recipe):
        out, file = recipe_for(recipe, out, start, minutes, size)
    elif minutes is not None or size is not None:
        raise UsageError(
            f"--minutes and --size are for a folder or zip of images, which {recipe} is not; use --set steps=N"
        )
    else:
        file = recipe
    from trilemma.train.interruption import Interrupted
    from trilemma.train.trainer import train

    stages = read_stages(file, overrides or [])
    if stages and (start is not None or from_checkpoint is not None):
        raise UsageError(
            f"{file} has stages, and each begins with the model of the one before; leave --from and "
            "--from-checkpoint out, or set start in a stage"
        )
    say = _quiet if as_json else _say
    try:
        if stages:
            folder = out or Path("runs") / file.stem
            result = train_stages(stages, folder, progress=progress, ended=say)[-1]
        else:
            parsed = read_recipe(file, overrides or [])
            parsed = parsed if start is None else dataclasses.replace(parsed, start=start)
            folder = out or Path("runs") / parsed.name
            result = train(parsed, folder, progress=progress, from_checkpoint=from_checkpoint)
            say(result)
    except Interrupted as interrupted:
        print(f"{interrupted}; go on with: {_again(context.params)}", file=sys.stderr)
        raise typer.Exit(130) from None
    if as_json:
        print_json({"model": str(result.model), "steps": result.steps, **result.last})


def _quiet(result: TrainingResult) -> None:
    """Says nothing."""


def _say(result: TrainingResult) -> None:
    shown = {"evaluation": "4g", "loss": "4f"}
    said = [
        f"{name.replace('_', ' ')} {value:.{digits}}"
        for name, value in result.last.items()
        for kind, digits in shown.items()
        if kind in (name.partition("_")[0], name.rpartition("_")[2])
    ]
    typer.echo(f"{result.model}: {', '.join([f'{result.steps} steps', *said])}")


def _again(given: Mapping[str, Any]) -> str:
    """The command line of these parameters."""
    words = ["trilemma", "train", str(given["recipe"])]
    for override in given["overrides"] or ():
        words += ["--set", override]
    named = {"out": "--out", "start": "--from", "from_checkpoint": "--from-checkpoint"}
    named |= {"minutes": "--minutes", "size": "--size", "threads": "--threads"}
    for name, option in named.items():
        if given[name]:
            words += [option, str(given[name])]
    words += [] if given["progress"] else ["--no-progress"]
    words += ["--json"] if given["as_json"] else []
    return " ".join(shlex.quote(word) for word in words)
