"""`trilemma eval`: measure a model's samples against its data set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from trilemma.cli.answer import print_json
from trilemma.cli.request_options import default, option
from trilemma.cli.shared_options import (
    Dataset,
    Dtype,
    FeatureNet,
    OtherConditions,
    Reference,
    Split,
    Stages,
    Threads,
    dtype_of,
    measured,
    use_threads,
)
from trilemma.cli.stages import stages_of

if TYPE_CHECKING:
    from trilemma.evaluate import Evaluator


def command(
    model: Annotated[str, typer.Argument(help="A model's name or directory.")],
    sampler: Annotated[str | None, option("sampler")] = default("sampler"),
    steps: Annotated[int | None, option("steps")] = default("steps"),
    guidance: Annotated[str | None, option("guidance")] = default("guidance"),
    cond: OtherConditions = None,
    stage: Stages = None,
    n: Annotated[int, option("n", "-n")] = 10_000,
    batch_size: Annotated[int, option("batch_size")] = 250,
    seed: Annotated[int, typer.Option(help="Seed of the samples, and of an untrained network.")] = 0,
    metrics: Annotated[
        list[str] | None,
        typer.Option("--metric", help="Metric; repeatable [default: all that apply to a labelled data set]."),
    ] = None,
    dataset: Dataset = None,
    features: FeatureNet = None,
    reference: Reference = None,
    split: Split = None,
    untrained: Annotated[
        bool,
        typer.Option("--untrained", help="Replace the weights by a fresh initialisation, for comparison."),
    ] = False,
    baseline: Annotated[
        bool,
        typer.Option(help="Also measure real images, of --split, else of the split that is no reference."),
    ] = True,
    device: Annotated[str | None, option("device")] = default("device"),
    dtype: Dtype = "float32",
    threads: Threads = 0,
    progress: Annotated[bool, option("progress")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Draw samples of MODEL and measure them: Fréchet distance, precision, recall, class agreement, speed."""
    of_stages = stages_of(stage or ())

    from trilemma import evaluate
    from trilemma.engine.request import Request

    kind = dtype_of(dtype)
    use_threads(threads)
    network, evaluator = measured(
        model,
        cond,
        kind,
        device=device,
        dataset=dataset,
        features=features,
        metrics=metrics,
        reference=reference,
        measured=split,
    )
    asked = evaluate.untrained(network, seed) if untrained else network
    if not evaluator.of_samples:
        record = evaluate.evaluate_model(asked, evaluator, n=n, batch_size=batch_size, seed=seed)
        record |= {"untrained": untrained, "baseline": None}
        print_json(record) if as_json else _print_of_the_model(record)
        return
    request = Request(
        asked,
        n,
        sampler=sampler,
        steps=steps,
        guidance=guidance,
        batch_size=batch_size,
        seed=seed,
        progress=progress,
        stages=of_stages,
    )
    record = evaluate.evaluate(request, evaluator)
    record["untrained"] = untrained
    record["baseline"] = _baseline(evaluator) if baseline else None
    if as_json:
        print_json(record)
    else:
        _print_table(record)


def _baseline(evaluator: Evaluator) -> dict[str, Any] | None:
    """The metrics of real images; None where none applies, or, with the reason on stderr, where they are too few."""
    from trilemma.errors import TrilemmaError

    if not evaluator.comparisons:
        return None
    try:
        return evaluator.baseline
    except TrilemmaError as error:
        typer.echo(f"no figures of real images: {error}", err=True)
        return None


def _print_table(record: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    reference, real, enlarged = record["reference"], record["baseline"], record.get("enlarged")
    name = record["model"]["name"] + (", untrained" if record["untrained"] else "")
    guided = f", {record['guidance']}" if record["guidance"] else ""
    stages = record.get("stages") or [record]
    way = ", then ".join(f"{stage['sampler']}, {stage['steps']} steps" for stage in stages)
    table = Table(title=f"{name}: {record['n']:,} samples by {way}{guided}")
    table.add_column("metric")
    table.add_column("samples", justify="right")
    if enlarged:
        table.add_column(enlarged["by"], justify="right")
    if real:
        table.add_column(f"{real['images']:,} {real['split']} images", justify="right")
    table.add_column(f"reference: {reference['split']} images", justify="right")
    others = [found["metrics"] for found in (enlarged, real) if found]
    for metric, value in record["metrics"].items():
        row = [
            metric,
            _number(value),
            *(_number(found[metric]) if metric in found else "" for found in others),
        ]
        count = reference["images"].get(metric)
        table.add_row(*row, f"{count:,}" if count else "")
    console = Console()
    console.print(table)
    console.print(f"NFE {record['nfe']} a sample, {record['images_per_second']:.1f} images/s")
    console.print(
        f"{record['seconds']:.1f} s by {record['backend']} kernels, network in {record['network_dtype']}, "
        f"{record['threads']} threads"
    )
    if record["features"]:
        console.print(f"features: {record['features']}")
    if record["of_the_model"]:
        _print_of_the_model(record)
    else:
        _print_splits(record)


def _print_splits(record: dict[str, Any]) -> None:
    """Says how a data set without splits was split, and whether the model has seen its images."""
    rule, seen = record["splits"]["rule"], record["splits"]["trained_on"]
    if rule:
        known = "may have seen both" if seen is None else f"has seen {_counted(seen)}"
        typer.echo(f"{rule}, the rest train; the model {known} in training")


def _counted(seen: list[str]) -> str:
    if not seen:
        return "neither"
    return "both" if len(seen) > 1 else f"{seen[0]} alone"


def _print_of_the_model(record: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    name = record["model"]["name"] + (", untrained" if record["untrained"] else "")
    for metric, found in record["of_the_model"].items():
        table = Table(title=f"{name}: {metric}")
        table.add_column("term")
        table.add_column("value", justify="right")
        for term, value in found.items():
            table.add_row(term, value if isinstance(value, str) else _number(value))
        Console().print(table)
    _print_splits(record)


def _number(value: float | None) -> str:
    return "not applicable" if value is None else f"{value:.4g}"
