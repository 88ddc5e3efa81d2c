"""`trilemma sample`: draw samples into a file."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trilemma.errors import UsageError

if TYPE_CHECKING:
    from trilemma.denoiser import Denoiser


def command(
    model: Annotated[str, typer.Argument(help="A model's name or directory.")],
    n: Annotated[int, typer.Option("-n", help="Number of samples.")] = 64,
    sampler: Annotated[str, typer.Option(help="Sampler, such as ddim:eta=0,grid=trailing.")] = "ddim",
    steps: Annotated[int, typer.Option(help="Number of steps.")] = 50,
    guidance: Annotated[
        str | None, typer.Option(help="Guidance, such as cfg:scale=2 (scale 1 is none).")
    ] = None,
    cond: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="Condition, such as class=7; a list is cycled through; repeatable."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed; sample i depends on (seed, i) alone.")] = 0,
    out: Annotated[
        str, typer.Option(help="x.png (a grid), x.npz, or a folder (one PNG a sample, resumable).")
    ] = "samples.png",
    batch_size: Annotated[int, typer.Option(help="Samples in one call of the network.")] = 64,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="The same bits however the samples are batched.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="Device of the network.")] = None,
    dtype: Annotated[str, typer.Option(help="dtype of the network: float32 or bfloat16.")] = "float32",
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves torch's choice.", min=0)] = 0,
    progress: Annotated[bool, typer.Option(help="Show a progress bar on stderr.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print place and provenance as JSON.")] = False,
) -> None:
    """Draw samples from MODEL into a picture, an .npz, or a folder of pictures."""
    place = Path(out)
    kind = _kind(out)
    conditions = dict(_condition(text) for text in cond or [])
    if dtype not in ("float32", "bfloat16"):
        raise UsageError(f"unknown dtype {dtype!r}; give float32 or bfloat16")
    if n < 1:
        raise UsageError(f"-n {n} is not a number of samples; give an integer of at least 1")

    import torch

    import trilemma
    from trilemma.output import check_writable

    if threads:
        torch.set_num_threads(threads)
    if kind != "folder":
        check_writable(place.parent)
    network = trilemma.load(model, device=device, dtype=getattr(torch, dtype))
    request: dict[str, Any] = {
        "sampler": sampler,
        "steps": steps,
        "guidance": guidance,
        "cond": conditions,
        "seed": seed,
        "batch_size": batch_size,
        "deterministic": deterministic,
        "dtype": "float32",  # of the state, whatever the network's
    }
    if kind == "folder":
        provenance, drawn = _fill(place, network, n, request, progress)
    else:
        samples = trilemma.sample(network, n, **request, progress=progress)
        _write(kind, place, samples.samples, samples.provenance)
        provenance, drawn = samples.provenance, n
    if as_json:
        typer.echo(json.dumps({"out": str(place), "drawn": drawn, **provenance}, ensure_ascii=False))
    else:
        typer.echo(_summary(place, drawn, n, provenance))


def _kind(out: str) -> str:
    suffix = Path(out).suffix.lower()
    if out.endswith("/") or not suffix or Path(out).is_dir():
        return "folder"
    if suffix not in (".png", ".npz"):
        raise UsageError(f"--out {out}: unknown kind of file {suffix!r}; give x.png, x.npz, or a folder")
    return suffix[1:]


def _condition(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise UsageError(f"--cond {text!r} is no NAME=VALUE pair; write for example --cond class=7")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _write(kind: str, place: Path, samples: Any, provenance: dict[str, Any]) -> None:
    from trilemma.output import write_npz, write_png_grid

    writer = write_npz if kind == "npz" else write_png_grid
    writer(place, samples, provenance)


def _fill(
    place: Path, network: Denoiser, n: int, request: dict[str, Any], progress: bool
) -> tuple[dict[str, Any], int]:
    """Draws what a folder still lacks, writing each batch as it comes; provenance and how many were drawn."""
    import trilemma
    from trilemma.output import SampleFolder

    provenance = trilemma.sample_chunks(network, n, **request).provenance
    folder = SampleFolder(place, provenance)
    missing = folder.missing(n)
    if missing:
        chunks = trilemma.sample_chunks(network, indices=missing, **request, progress=progress)
        for indices, samples in chunks:
            folder.write(indices, samples)
        provenance = {**chunks.provenance, "n": n}
        folder.record(provenance)
    return provenance, len(missing)


def _summary(place: Path, drawn: int, n: int, provenance: dict[str, Any]) -> str:
    if not drawn:
        return f"{place}: all {n} samples are there already"
    rest = f" ({n - drawn} were there already)" if drawn < n else ""
    return (
        f"{place}: {drawn} samples{rest} in {provenance['seconds']:.1f} s "
        f"({provenance['images_per_second']:.1f} images/s), NFE {provenance['nfe']} a sample, "
        f"{provenance['backend']} kernels on {provenance['device']}"
    )
