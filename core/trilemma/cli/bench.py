"""`trilemma bench`: kernels and sampling loops against their peers, and samplers against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from trilemma.cli.answer import print_json
from trilemma.cli.shared_options import Dtype, Threads, dtype_of, use_threads

command = typer.Typer(add_completion=False, rich_markup_mode=None, invoke_without_command=True)


@command.callback()
def options(context: typer.Context) -> None:
    """Measure kernels, sampling loops and samplers against their peers, in one run."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


@command.command()
def kernels(
    ops: Annotated[
        list[str] | None,
        typer.Option("--op", metavar="NAME", help="Operator or step; repeatable [default: all]."),
    ] = None,
    device: Annotated[str, typer.Option(help="Device: cpu or cuda.")] = "cpu",
    threads: Threads = 0,
    seconds: Annotated[float, typer.Option(help="Seconds to spend on a cell, about.", min=0.01)] = 2.0,
    cold: Annotated[bool, typer.Option("--cold", help="Flush the caches before each call.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Only the first cell of each operator.")] = False,
    compare: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON lines of an earlier run to set beside this one.")
    ] = None,
    roofline: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also plot a roofline (needs the extra bench).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line a cell.")] = False,
) -> None:
    """Time each operator against its peers.

    Each is first checked against float64, then timed in turn with its peers and with a copy of its bytes.
    """

    from trilemma.bench.comparison import earlier_runs
    from trilemma.bench.kernels import records
    from trilemma.bench.table import KernelTable
    from trilemma.machine.device import usable_device

    use_threads(threads)
    earlier = earlier_runs(compare) if compare else {}
    found: list[dict[str, Any]] = []
    table = None if as_json else KernelTable(earlier)
    for record in records(ops or (), usable_device(device), seconds, cold, quick):
        found.append(record)
        if table is None:
            print_json(record)
        else:
            table.show(record)
    if table is not None:
        table.summarise(found)
    if roofline is not None:
        from trilemma.bench.roofline import plot_roofline

        plot_roofline(found, roofline)


@command.command()
def loop(
    threads: Threads = 0,
    steps: Annotated[int, typer.Option(help="Steps of DDIM.", min=1, max=1000)] = 50,
    n: Annotated[int, typer.Option("-n", help="Images.", min=1)] = 16,
    rounds: Annotated[int, typer.Option(help="Rounds; every contender runs once in each.", min=1)] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Time sampling loops against diffusers'.

    One network with the same weights: diffusers' pipeline, and ours, plain and fused.
    """

    from trilemma.bench.loop import loop_record
    from trilemma.bench.table import show_loop

    use_threads(threads)
    record = loop_record(n, steps, rounds)
    if as_json:
        print_json(record)
    else:
        show_loop(record)


@command.command()
def samplers(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL [MODEL]...",
            help="A model's name or directory, on which the samplers are measured; and others to measure beside it, "
            "each with the sampler and steps of its card.",
        ),
    ],
    specs: Annotated[
        list[str] | None,
        typer.Option(
            "--sampler",
            metavar="SPEC",
            help="Sampler, such as ddim:eta=1; repeatable [default: all installed, and their variants].",
        ),
    ] = None,
    budgets: Annotated[
        list[int] | None,
        typer.Option(
            "--nfe",
            metavar="NFE",
            help="Network evaluations a sample may pay; repeatable [default: 4 6 8 10 15 20 30 50 100].",
        ),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metric", metavar="SPEC", help="Metric; repeatable [default: those of the first model's card]."
        ),
    ] = None,
    n: Annotated[int, typer.Option("-n", help="Samples a cell.")] = 2000,
    batch_size: Annotated[int, typer.Option(help="Samples in one call of the network.")] = 250,
    seed: Annotated[int, typer.Option(help="Seed of the samples.")] = 0,
    dtype: Dtype = "float32",
    threads: Threads = 0,
    only_quality: Annotated[
        bool, typer.Option("--only-quality", help="Record no images/s, as on a busy machine.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.jsonl", help="Append the cells to this file; those it holds are kept."),
    ] = None,
    progress: Annotated[bool, typer.Option(help="Show a progress bar on stderr.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line a cell.")] = False,
) -> None:
    """Measure samplers and models at equal numbers of network evaluations: quality, coverage and speed.

    A sampler takes the most steps that a budget pays for. Models are compared by the data set, features and metrics of
    the first.
    """

    import trilemma
    from trilemma.bench.samplers import BUDGETS, Conditions, contenders, records
    from trilemma.bench.table import show_samplers
    from trilemma.evaluate import Evaluator

    kind = dtype_of(dtype)
    use_threads(threads)
    network, *beside = (trilemma.load(model, dtype=kind, fused=True) for model in models)
    evaluator = Evaluator.of(network, metrics=metrics)
    for other in beside:
        evaluator.check(other)
    conditions = Conditions(n, seed, batch_size, speed=not only_quality, progress=progress)
    found: list[dict[str, Any]] = []
    for record in records(
        network,
        evaluator,
        contenders(specs or (), network.process.components),
        budgets or BUDGETS,
        conditions,
        out,
        beside,
    ):
        found.append(record)
        if as_json:
            print_json(record)
    if not as_json:
        show_samplers(found)
