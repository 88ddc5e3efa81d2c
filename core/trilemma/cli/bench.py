"""`trilemma bench`: the speed of the kernels and of whole sampling loops, as ratios within one run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

command = typer.Typer(add_completion=False, rich_markup_mode=None, invoke_without_command=True)


@command.callback()
def options(context: typer.Context) -> None:
    """Measure kernels and sampling loops against their peers, in one run."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


@command.command()
def kernels(
    ops: Annotated[
        list[str] | None, typer.Option("--op", metavar="NAME", help="Operator; repeatable [default: all].")
    ] = None,
    device: Annotated[str, typer.Option(help="Device: cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves torch's choice.", min=0)] = 0,
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
    import torch

    from trilemma.bench.comparison import earlier_runs
    from trilemma.bench.kernels import records
    from trilemma.bench.table import KernelTable
    from trilemma.device import usable_device

    if threads:
        torch.set_num_threads(threads)
    earlier = earlier_runs(compare) if compare else {}
    found: list[dict[str, Any]] = []
    table = None if as_json else KernelTable(earlier)
    for record in records(ops or (), usable_device(device), seconds, cold, quick):
        found.append(record)
        if table is None:
            typer.echo(json.dumps(record, ensure_ascii=False))
        else:
            table.show(record)
    if table is not None:
        table.summarise(found)
    if roofline is not None:
        from trilemma.bench.roofline import plot_roofline

        plot_roofline(found, roofline)


@command.command()
def loop(
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves torch's choice.", min=0)] = 0,
    steps: Annotated[int, typer.Option(help="Steps of DDIM.", min=1, max=1000)] = 50,
    n: Annotated[int, typer.Option("-n", help="Images.", min=1)] = 16,
    rounds: Annotated[int, typer.Option(help="Rounds; every contender runs once in each.", min=1)] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Time sampling loops against diffusers'.

    One network with the same weights: diffusers' pipeline, and ours, plain and fused.
    """
    import torch

    from trilemma.bench.loop import loop_record
    from trilemma.bench.table import show_loop

    if threads:
        torch.set_num_threads(threads)
    record = loop_record(n, steps, rounds)
    if as_json:
        typer.echo(json.dumps(record, ensure_ascii=False))
    else:
        show_loop(record)
