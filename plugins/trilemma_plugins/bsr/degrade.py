"""`trilemma degrade`: write degraded versions of pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from torch import Tensor

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


def command(
    source: Annotated[
        Path, typer.Argument(metavar="FOLDER_OR_PICTURE", help="Pictures; folders in it, too.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the degraded pictures.")],
    kind: Annotated[str, typer.Option(help="bsr, bsr-light or bsr-plus.")] = "bsr",
    factor: Annotated[int, typer.Option(help="By which the sides shrink.")] = 4,
    seed: Annotated[int, typer.Option(help="With the picture's name it decides all its draws.")] = 0,
    copies: Annotated[int, typer.Option(help="Degraded versions of each picture.", min=1)] = 1,
    force: Annotated[bool, typer.Option("--force", help="Replace pictures that are there.")] = False,
) -> None:
    """Degrade every picture of FOLDER_OR_PICTURE into a smaller PNG of its name.

    A picture is cut at its right and lower border to multiples of the factor. Its name inside the folder and the seed
    decide its draws, so that pictures that are added change no other.
    """
    from trilemma.errors import OutputError, UsageError
    from trilemma.output.atomic import replacing
    from trilemma.output.picture import encode_png
    from trilemma_plugins.bsr.degradation import Degradation

    degradation = Degradation(kind, factor, seed)
    tasks = list(_tasks(source, out, copies))
    if not tasks:
        raise UsageError(f"{source} holds no pictures ({', '.join(_SUFFIXES)}); give another folder")
    targets = [target for _, _, target, _ in tasks]
    if len(set(targets)) < len(targets):
        twice = next(target for target in targets if targets.count(target) > 1)
        raise UsageError(f"two pictures of {source} would become {twice}; rename one")
    there = [target for target in targets if target.exists()]
    if there and not force:
        raise OutputError(f"{there[0]} exists; give another --out, or --force to replace it")
    # All pictures are looked at before one is written.
    for path in dict.fromkeys(path for path, _, _, _ in tasks):
        _cut(path, _levels(path), degradation.factor)
    for path, name, target, copy in tasks:
        levels = _cut(path, _levels(path), degradation.factor)
        made = degradation(levels, _key(name, copy))
        target.parent.mkdir(parents=True, exist_ok=True)
        record: dict[str, Any] = {
            "degradation": kind,
            "factor": factor,
            "seed": seed,
            "of": name,
            "copy": copy,
        }
        content = encode_png(made, record)
        with replacing(target) as file:
            file.write(content)
    typer.echo(f"{out}: {len(tasks)} pictures by {kind}, {factor} times smaller")


def _tasks(source: Path, out: Path, copies: int) -> Iterator[tuple[Path, str, Path, int]]:
    """Paths of pictures with their name inside the folder, the file to write, and the number of the copy."""
    from trilemma.errors import UsageError

    if not source.exists():
        raise UsageError(f"there is no {source}; give a folder of pictures, or one picture")
    inside = sorted(path for path in source.rglob("*") if path.suffix.lower() in _SUFFIXES)
    for path in inside if source.is_dir() else [source]:
        name = path.relative_to(source if source.is_dir() else source.parent)
        for copy in range(copies):
            ending = f".{copy + 1}.png" if copies > 1 else ".png"
            yield path, name.as_posix(), out / name.with_suffix(ending), copy


def _levels(path: Path) -> Tensor:
    """The pixels uint8 [C, H, W] of a picture, grey where it is stored so."""
    import io

    from PIL import Image

    from trilemma.errors import DataError, message_of
    from trilemma.files.picture import FILE_LIMIT, decode_picture
    from trilemma.files.regular import read_regular

    try:
        blob = read_regular(path, FILE_LIMIT)
        with Image.open(io.BytesIO(blob)) as image:
            grey = image.mode in ("1", "L", "LA", "La", "I;16", "I", "F")
        return decode_picture(blob, 1 if grey else 3)
    except Exception as error:
        reason = getattr(error, "strerror", None) or message_of(error)
        raise DataError(f"cannot read {path}: {reason}; replace it") from error


def _cut(path: Path, levels: Tensor, factor: int) -> Tensor:
    from trilemma.errors import UsageError

    height, width = (side // factor * factor for side in levels.shape[1:])
    if not height or not width:
        raise UsageError(
            f"{path} has {levels.shape[1]}×{levels.shape[2]} pixels; give a factor of at most that"
        )
    return levels[:, :height, :width]


def _key(name: str, copy: int) -> int:
    """A picture's key, below 2⁶²."""
    digest = hashlib.sha256(f"{name}\0{copy}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") >> 2
