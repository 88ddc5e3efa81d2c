"""`trilemma upscale`: enlarge pictures with a model that is told small ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trilemma.cli.conditions import pairs, values
from trilemma.cli.request_options import default, option
from trilemma.cli.shared_options import ForcePictures, ResumePictures, Threads, use_threads
from trilemma.errors import UsageError


def command(
    model: Annotated[str, typer.Argument(help="A model's name or directory.")],
    source: Annotated[Path, typer.Argument(metavar="PICTURE_OR_FOLDER", help="What to enlarge.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="FILE.png for one picture, or a folder.")],
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
    force: ForcePictures = False,
    resume: ResumePictures = False,
    progress: Annotated[bool, option("progress")] = True,
) -> None:
    """Enlarge PICTURE_OR_FOLDER by MODEL; pictures larger than it takes are enlarged tile by tile.

    Pictures are read as data sets read them: transparent pixels become white, grey ones get the model's colours.
    """

    import trilemma
    from trilemma.engine.resolve import resolved_model
    from trilemma.engine.upscaling import Upscaler
    from trilemma.files.picture_tasks import picture_tasks
    from trilemma.output.atomic import replacing, telling
    from trilemma.output.picture import encode_png, to_bytes

    use_threads(threads)
    tasks = picture_tasks(source, out, force=force, resume=resume)
    network = trilemma.load(model, device=device, fused=True)
    if isinstance(network, trilemma.Cascade):
        raise UsageError(
            f"{model} is a cascade, which draws its own small pictures; give the model of one of its later stages"
        )
    network = resolved_model(network)
    upscaler = Upscaler(network)
    if not tasks:
        typer.echo(f"{out}: all pictures are there")
    channels = upscaler.condition.shape[0]
    # All pictures are looked at before one is written.
    for task in tasks:
        upscaler.check(task.levels(channels), str(task.source))
    told = values(pairs(cond or ()), network)
    for task in tasks:
        large, record = upscaler(
            task.levels(channels).float() / 127.5 - 1,
            noise,
            sampler=sampler,
            steps=steps,
            guidance=guidance,
            cond=told,
            seed=seed,
            batch_size=batch_size,
            progress=progress,
        )
        content = encode_png(to_bytes(large), {**record, "upscaled": task.name, "told_noise": noise})
        with telling(task.target):
            task.target.parent.mkdir(parents=True, exist_ok=True)
            with replacing(task.target) as file:
                file.write(content)
        typer.echo(f"{task.target}: {large.shape[1]}×{large.shape[2]} (H×W), NFE {record['nfe']} a tile")
