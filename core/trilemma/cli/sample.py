"""`trilemma sample`: draw samples from a model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trilemma.cli.answer import print_json
from trilemma.cli.conditions import pairs, values
from trilemma.cli.request_options import default, option
from trilemma.cli.shared_options import Dtype, Stages, Threads, dtype_of, use_threads
from trilemma.cli.stages import stages_of
from trilemma.errors import UsageError

if TYPE_CHECKING:
    from trilemma.output.destination import Sink


def command(
    model: Annotated[str, typer.Argument(help="A model's name or directory.")],
    n: Annotated[int, option("n", "-n")] = 64,
    sampler: Annotated[str | None, option("sampler")] = default("sampler"),
    steps: Annotated[int | None, option("steps")] = default("steps"),
    guidance: Annotated[str | None, option("guidance")] = default("guidance"),
    cond: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Condition, such as class=7 or class=cat (a number is a label, anything else a name), level=0.3, "
            "image=photo.png or text='a red square'; sample i of a list, class=[cat,dog], takes entry i modulo its "
            "length; repeatable.",
        ),
    ] = None,
    seed: Annotated[int, option("seed")] = default("seed"),
    noise: Annotated[str, option("noise", metavar="keyed|brownian")] = default("noise"),
    indices: Annotated[
        str | None, typer.Option(help="Draw these samples, such as 17 or 0-63,100, instead of the first n.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(help="Start from these images, a picture (one) or FILE.npz, noised up to --strength."),
    ] = None,
    strength: Annotated[float | None, option("strength")] = default("strength"),
    known: Annotated[
        str | None, typer.Option(help="Keep a region of these images, a picture or FILE.npz; see --mask.")
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option(help="White where --known is kept, black where it is drawn: a picture or FILE.npz."),
    ] = None,
    resample: Annotated[int, option("resample")] = default("resample"),
    jump: Annotated[int, option("jump")] = default("jump"),
    stage: Stages = None,
    all_stages: Annotated[bool, option("all_stages", "--stages")] = default("all_stages"),
    trajectory: Annotated[
        bool,
        typer.Option(
            "--trajectory",
            help="Also write the state after each step; for FILE.npz, and always for FILE.gif and .webp.",
        ),
    ] = False,
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            help="FILE.png or .jpg for a grid, FILE.gif or .webp for an animation of the way, FILE.npz for an "
            "array, or a folder for one PNG a sample, written as they come; asked for again, it gets what is missing.",
        ),
    ] = "samples.png",
    columns: Annotated[int | None, typer.Option(help="Samples in a row of the grid.")] = None,
    batch_size: Annotated[int, option("batch_size")] = default("batch_size"),
    deterministic: Annotated[bool, option("deterministic", "--deterministic")] = default("deterministic"),
    device: Annotated[str | None, option("device")] = default("device"),
    dtype: Dtype = "float32",
    capture: Annotated[str, option("capture")] = default("capture"),
    threads: Threads = 0,
    progress: Annotated[bool, option("progress")] = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no summary.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the provenance as JSON.")] = False,
) -> None:
    """Draw samples from MODEL into a picture, an array or a folder of pictures."""
    told = pairs(cond or ())
    of_stages = stages_of(stage or ())

    import torch

    import trilemma
    from trilemma.engine.cascade import chunks_of
    from trilemma.engine.request import Request
    from trilemma.engine.resolve import resolved_model
    from trilemma.files.request import read_images, read_mask
    from trilemma.output import destination, parse_indices

    kind = dtype_of(dtype)
    target = destination(out, columns)
    if trajectory and not target.holds_trajectory:
        raise UsageError(f"{out} cannot hold a trajectory; end it in .npz, or in .gif for an animation")
    use_threads(threads)
    network = trilemma.load(model, device=device, dtype=kind, fused=True)
    if not isinstance(network, trilemma.Cascade):
        resolved_model(network)

    resized: list[str] = []
    given: dict[str, Any] = {
        "start": None if start is None else read_images(start, network.image_shape, resized.append),
        "known": None if known is None else read_images(known, network.image_shape, resized.append),
        "mask": None if mask is None else read_mask(mask, network.image_shape, resized.append),
    }

    request = Request(
        network,
        n,
        sampler=sampler,
        steps=steps,
        guidance=guidance,
        cond=values(told, network),
        seed=seed,
        noise=noise,
        indices=None if indices is None else parse_indices(indices),
        batch_size=batch_size,
        deterministic=deterministic,
        dtype=torch.float32,
        capture=capture,
        strength=strength,
        resample=resample,
        jump=jump,
        trajectory=trajectory or target.needs_trajectory,
        stages=of_stages,
        all_stages=all_stages,
        **given,
    )
    chunks = chunks_of(request)
    wanted = chunks.resolved.indices
    runs = [chunks, *(chunks.before if all_stages else ())]
    targets = [target, *(target.of_stage(number) for number in range(1, len(runs)))]
    for place, run in zip(targets, runs, strict=True):
        place.check(run.resolved.sample_shape, run.resolved.numbers)
    for line in () if quiet else resized:
        typer.echo(line, err=True)
    with ExitStack() as stack:
        sinks = [
            stack.enter_context(place.open(wanted, run.provenance))
            for place, run in zip(targets, runs, strict=True)
        ]
        if missing := _missing(sinks):
            chunks = chunks_of(replace(request, indices=missing, progress=progress and not quiet))
            for drawn, samples in chunks:
                sinks[0].add(drawn.tolist(), samples, chunks.trajectory, chunks.times)
                for sink, images in zip(sinks[1:], chunks.stages, strict=True):
                    sink.add(drawn.tolist(), images)
        kept = {**sinks[0].finish(chunks.provenance), "out": str(target.path), "drawn": len(missing)}
        for sink, run in zip(sinks[1:], chunks.before, strict=False):
            sink.finish(run.provenance)
    if as_json:
        print_json(kept)
    elif not quiet:
        typer.echo(_summary(kept))


def _missing(sinks: Sequence[Sink]) -> Sequence[int]:
    """The indices that one of the sinks lacks."""
    if len(sinks) == 1:
        return sinks[0].missing()
    return sorted(set().union(*(sink.missing() for sink in sinks)))


def _captured(capture: dict[str, Any]) -> str:
    """Says what was captured, and what was not though it was asked for."""
    if capture["ran"] != "off":
        return f", captured by {capture['ran']}"
    if capture["asked"] in ("auto", "off"):
        return ""
    return f", not captured: {capture['passed_over'][capture['asked']]}"


def _summary(kept: dict[str, Any]) -> str:
    if not kept["drawn"]:
        return f"{kept['out']}: all samples asked for are there"
    there = kept["n"] - kept["drawn"]
    return (
        f"{kept['out']}: {kept['drawn']} samples drawn" + (f", {there} were there" if there else "") + f" in "
        f"{kept['seconds']:.2f} s ({kept['images_per_second']:.1f} images/s), NFE {kept['nfe']} a sample, "
        f"{kept['backend']} kernels{_captured(kept['capture'])}"
    )
