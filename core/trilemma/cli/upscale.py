"""`trilemma upscale`: enlarge pictures with a model that is told small ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trilemma.cli.conditions import pairs, values
from trilemma.cli.request_options import default, option
from trilemma.cli.shared_options import Threads, use_threads
from trilemma.errors import OutputError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


def command(
    model: Annotated[str, typer.Argument(help="A model's name or directory.")],
    source: Annotated[Path, typer.Argument(metavar="PICTURE_OR_FOLDER", help="What to enlarge.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="FILE.png, or a folder for the pictures of one.")],
    sampler: Annotated[str | None, option("sampler")] = default("sampler"),
    steps: Annotated[int | None, option("steps")] = default("steps"),
    guidance: Annotated[str | None, option("guidance")] = default("guidance"),
    cond: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Condition beside the picture, such as class=7; repeatable."),
    ] = None,
    noise: Annotated[
        float, typer.Option(help="Noise to put on the small picture, for a model that is told its level.")
    ] = 0.0,
    seed: Annotated[int, option("seed")] = default("seed"),
    batch_size: Annotated[int, option("batch_size")] = default("batch_size"),
    device: Annotated[str | None, option("device")] = default("device"),
    threads: Threads = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace pictures that are there.")] = False,
) -> None:
    """Enlarge PICTURE_OR_FOLDER by MODEL; pictures larger than it takes are enlarged tile by tile."""

    import trilemma
    from trilemma.engine.resolve import resolved_model
    from trilemma.engine.upscaling import Upscaler
    from trilemma.output.atomic import replacing
    from trilemma.output.picture import encode_png, to_bytes

    use_threads(threads)
    tasks = _tasks(source, out)
    there = [target for _, target in tasks if target.exists()]
    if there and not force:
        raise OutputError(f"{there[0]} exists; give another --out, or --force to replace it")
    network = resolved_model(trilemma.load(model, device=device, fused=True))
    upscaler = Upscaler(network)
    channels = upscaler.condition.shape[0]
    # All pictures are looked at before one is written.
    for path, _ in tasks:
        upscaler.check(_read(path, channels), str(path))
    told = values(pairs(cond or ()), network)
    for path, target in tasks:
        large, record = upscaler(
            _read(path, channels),
            noise,
            sampler=sampler,
            steps=steps,
            guidance=guidance,
            cond=told,
            seed=seed,
            batch_size=batch_size,
        )
        target.parent.mkdir(parents=True, exist_ok=True)
        content = encode_png(to_bytes(large), {**record, "upscaled": path.name, "told_noise": noise})
        with replacing(target) as file:
            file.write(content)
        typer.echo(f"{target}: {large.shape[1]}×{large.shape[2]} (H×W), NFE {record['nfe']} a tile")


def _tasks(source: Path, out: Path) -> list[tuple[Path, Path]]:
    """The pictures to read, each with the file to write."""
    if not source.exists():
        raise UsageError(f"there is no {source}; give a picture, or a folder of pictures")
    if not source.is_dir():
        if out.suffix.lower() != ".png":
            raise UsageError(f"--out {out} is no FILE.png, which one picture needs; give one")
        return [(source, out)]
    found = sorted(path for path in source.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if not found:
        raise UsageError(f"{source} holds no pictures ({', '.join(_SUFFIXES)}); give another folder")
    targets = [out / path.relative_to(source).with_suffix(".png") for path in found]
    if len(set(targets)) < len(targets):
        twice = next(target for target in targets if targets.count(target) > 1)
        raise UsageError(f"two pictures of {source} would become {twice}; rename one")
    return list(zip(found, targets, strict=True))


def _read(path: Path, channels: int) -> Tensor:
    """A picture [C, h, w] in [−1, 1]."""
    from trilemma.errors import DataError, message_of
    from trilemma.files.picture import FILE_LIMIT, decode_picture
    from trilemma.files.regular import read_regular

    try:
        return decode_picture(read_regular(path, FILE_LIMIT), channels).float().div_(127.5).sub_(1)
    except Exception as error:
        reason = getattr(error, "strerror", None) or message_of(error)
        raise DataError(f"cannot read {path}: {reason}; replace it") from error
