"""`trilemma sweep`: measure a model's samples at several values of one option."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trilemma.cli.answer import print_json
from trilemma.cli.request_options import default, option
from trilemma.cli.shared_options import (
    Dataset,
    FeatureNet,
    OtherConditions,
    Reference,
    Split,
    Stages,
    Threads,
    measured,
    use_threads,
)
from trilemma.cli.stages import stages_of
from trilemma.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable


def command(
    model: Annotated[str, typer.Argument(help="A model's name or directory.")],
    swept: Annotated[
        str,
        typer.Option(
            "--option",
            metavar="NAME=VALUES",
            help="Option and its values, such as stage.2.noise=0,0.05,0.1, steps=5,10,20 or cond.level=0,1.",
        ),
    ],
    stage: Stages = None,
    sampler: Annotated[str | None, option("sampler")] = default("sampler"),
    steps: Annotated[int | None, option("steps")] = default("steps"),
    guidance: Annotated[str | None, option("guidance")] = default("guidance"),
    cond: OtherConditions = None,
    n: Annotated[int, option("n", "-n")] = 5_000,
    batch_size: Annotated[int, option("batch_size")] = 250,
    seed: Annotated[int, option("seed")] = 0,
    metrics: Annotated[
        list[str] | None, typer.Option("--metric", help="Metric; repeatable [default: frechet].")
    ] = None,
    dataset: Dataset = None,
    features: FeatureNet = None,
    reference: Reference = None,
    split: Split = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="FILE.png for the curve, FILE.json and the table FILE.md beside it, written after each value.",
        ),
    ] = None,
    threads: Threads = 0,
    progress: Annotated[bool, option("progress")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the records as JSON.")] = False,
) -> None:
    """Measure samples of MODEL at each value of an option: quality against noise, steps, guidance and so on."""

    from trilemma import evaluate
    from trilemma.engine.request import Request

    if out is not None and out.suffix.lower() != ".png":
        raise UsageError(f"--out {out} is no FILE.png, which the curve needs; give one")
    draw = None if out is None else _drawing()
    use_threads(threads)
    parsed = evaluate.parse_swept(swept)
    network, evaluator = measured(
        model,
        cond,
        dataset=dataset,
        features=features,
        metrics=metrics or ["frechet"],
        reference=reference,
        measured=split,
    )
    request = Request(
        network,
        n,
        sampler=sampler,
        steps=steps,
        guidance=guidance,
        stages=stages_of(stage or ()),
        batch_size=batch_size,
        seed=seed,
        progress=progress,
    )
    records = []
    for record in evaluate.sweep(request, evaluator, parsed):
        records.append(record)
        if not as_json:
            typer.echo(_line(record))
        if out is not None and draw is not None:
            # A sweep that is stopped leaves what it has measured.
            _write(out, records, draw)
    if as_json:
        print_json(records)


def _line(record: Mapping[str, Any]) -> str:
    found = ", ".join(f"{name} {_number(value)}" for name, value in record["metrics"].items())
    return (
        f"{record['option']}={record['value']}: {found}; NFE {record['nfe']}, "
        f"{record['images_per_second']:.1f} images/s"
    )


def _number(value: float | None) -> str:
    return "not applicable" if value is None else f"{value:.4g}"


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """Returns the table of records of a sweep in Markdown."""
    first = records[0]
    names = list(first["metrics"])
    rows = [
        f"| {record['value']} | "
        + " | ".join(_number(record["metrics"][name]) for name in names)
        + f" | {record['nfe']} | {record['images_per_second']:.1f} |"
        for record in records
    ]
    head = f"{first['model']['name']}, {first['n']:,} samples a value, {first['threads']} threads"
    titles = " | ".join([first["option"], *names, "NFE", "images/s"])
    return "\n".join([head, "", f"| {titles} |", "|---" * (len(names) + 3) + "|", *rows, ""])


def _drawing() -> Callable[..., Any]:
    """The class of figures; asked for before anything is measured."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError('a curve needs matplotlib; pip install "trilemma[bench]"') from error
    return Figure


def _write(out: Path, records: Sequence[Mapping[str, Any]], figure_of: Callable[..., Any]) -> None:
    from trilemma.output.atomic import replacing

    out.parent.mkdir(parents=True, exist_ok=True)
    figure = figure_of(figsize=(6, 4), layout="constrained")
    names = list(records[0]["metrics"])
    numbers = all(isinstance(record["value"], int | float) for record in records)
    places = [record["value"] if numbers else str(record["value"]) for record in records]
    for place, name in enumerate(names):
        axes = figure.add_subplot(len(names), 1, place + 1)
        axes.plot(places, [record["metrics"][name] for record in records], "o-")
        axes.set(xlabel=records[0]["option"], ylabel=name)
        axes.grid(True, alpha=0.3)
    contents = {".json": json.dumps(list(records), indent=1, ensure_ascii=False), ".md": table(records)}
    for suffix, text in contents.items():
        with replacing(out.with_suffix(suffix)) as file:
            file.write(text.encode())
    with replacing(out) as file:
        figure.savefig(file, format="png", dpi=150)
