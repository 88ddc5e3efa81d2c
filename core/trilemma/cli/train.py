"""`trilemma train`: train a model by a recipe, or resume where a run stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trilemma.cli.answer import print_json


def command(
    recipe: Annotated[Path, typer.Argument(help="Recipe in TOML.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a value of the recipe; repeatable."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run [default: runs/NAME].")] = None,
    from_checkpoint: Annotated[
        Path | None,
        typer.Option(help="Begin a new run at a checkpoint of another one, or at the newest in its folder."),
    ] = None,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves torch's choice.", min=0)] = 0,
    progress: Annotated[bool, typer.Option(help="Show a progress bar on stderr.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a model by RECIPE; a run that was stopped resumes from its last checkpoint."""
    from trilemma.train.recipe import read_recipe

    parsed = read_recipe(recipe, overrides or [])
    folder = out or Path("runs") / parsed.name

    import torch

    from trilemma.train.trainer import train

    if threads:
        torch.set_num_threads(threads)
    result = train(parsed, folder, progress=progress, from_checkpoint=from_checkpoint)
    if as_json:
        print_json({"model": str(result.model), "steps": result.steps, **result.last})
    else:
        loss = result.last.get("loss")
        typer.echo(
            f"{result.model}: {result.steps} steps" + (f", loss {loss:.4f}" if loss is not None else "")
        )
