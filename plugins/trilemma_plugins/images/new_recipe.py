"""`trilemma new-recipe`: write a training recipe for a folder or zip of images."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from trilemma.cli.shared_options import Threads, use_threads


def command(
    source: Annotated[
        Path, typer.Argument(metavar="FOLDER_OR_ZIP", help="Images, in one folder a class or none.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The recipe to write.")] = Path("recipe.toml"),
    minutes: Annotated[float, typer.Option(help="How long the training may take on this machine.")] = 30.0,
    size: Annotated[
        int | None, typer.Option(help="Side that images are resized to [default: by theirs].")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="MODEL", help="Begin with the weights of a model (fine-tuning)."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file that is there.")] = False,
    threads: Threads = 0,
) -> None:
    """Write a training recipe for the images in FOLDER_OR_ZIP: size, colour, classes, network and steps.

    Every image is read; those that cannot be are listed, and no recipe is written. A few steps are timed, so that the
    training takes as long as --minutes allows. Change what you like in it: every line says what it is for.
    """
    from trilemma.errors import printable
    from trilemma.files.paths import user_path
    from trilemma.train.suggestion import Wish, check_free, run_name, write_recipe
    from trilemma_plugins.images.suggestion import suggest
    from trilemma_plugins.images.unreadable import Unreadable

    use_threads(threads)
    check_free(out, force)
    try:
        made = suggest(Wish(user_path(source), run_name(source), minutes, size, start))
    except Unreadable as unreadable:
        for name, reason in unreadable.reasons.items():
            typer.echo(printable(f"{name}: {reason}"))
        raise
    write_recipe(made.recipe, out, force)
    typer.echo(f"{printable(str(out))}: {made.summary}")
    typer.echo(f"next: trilemma train {shlex.quote(str(out))}")
