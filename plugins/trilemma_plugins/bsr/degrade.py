"""`trilemma degrade`: write degraded versions of pictures."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trilemma.cli.shared_options import ForcePictures, ResumePictures

if TYPE_CHECKING:
    from torch import Tensor

    from trilemma.files.picture_tasks import PictureTask


def command(
    source: Annotated[
        Path, typer.Argument(metavar="FOLDER_OR_PICTURE", help="Pictures; folders in it, too.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="A folder, or FILE.png for one picture.")],
    kind: Annotated[str, typer.Option(help="bsr, bsr-light or bsr-plus.")] = "bsr",
    factor: Annotated[int, typer.Option(help="By which the sides shrink.")] = 4,
    seed: Annotated[int, typer.Option(help="With the picture's name it decides all its draws.")] = 0,
    copies: Annotated[int, typer.Option(help="Degraded versions of each picture.", min=1)] = 1,
    force: ForcePictures = False,
    resume: ResumePictures = False,
) -> None:
    """Degrade every picture of FOLDER_OR_PICTURE into a smaller PNG of its name.

    A picture is cut at its right and lower border to multiples of the factor. Its name inside the folder and the seed
    decide its draws, so that pictures that are added change no other.
    """
    from trilemma.files.picture_tasks import picture_tasks
    from trilemma.output.atomic import replacing, telling
    from trilemma.output.picture import encode_png
    from trilemma_plugins.bsr.degradation import Degradation

    degradation = Degradation(kind, factor, seed)
    tasks = picture_tasks(source, out, copies, force=force, resume=resume)
    # All pictures are looked at before one is written.
    for task in tasks:
        if task.copy == 0:
            _cut(task, degradation.factor)
    for task in tasks:
        made = degradation(_cut(task, degradation.factor), _key(task.name, task.copy))
        record: dict[str, Any] = {
            "degradation": kind,
            "factor": factor,
            "seed": seed,
            "of": task.name,
            "copy": task.copy,
        }
        content = encode_png(made, record)
        with telling(task.target):
            task.target.parent.mkdir(parents=True, exist_ok=True)
            with replacing(task.target) as file:
                file.write(content)
    typer.echo(f"{out}: {len(tasks)} pictures by {kind}, {factor} times smaller")


def _cut(task: PictureTask, factor: int) -> Tensor:
    """The pixels of a picture, cut to multiples of the factor.

    Raises:
        DataError: for a file that cannot be read.
        UsageError: for a picture smaller than the factor.
    """
    from trilemma.errors import UsageError

    levels = task.levels()
    height, width = (side // factor * factor for side in levels.shape[1:])
    if not height or not width:
        raise UsageError(
            f"{task.source} has {levels.shape[1]}×{levels.shape[2]} pixels; give a factor of at most that"
        )
    return levels[:, :height, :width]


def _key(name: str, copy: int) -> int:
    """A picture's key, below 2⁶²."""
    digest = hashlib.sha256(f"{name}\0{copy}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") >> 2
