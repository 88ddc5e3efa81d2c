"""`trilemma calibrate`: measures which operators are faster by our kernels on this machine, and keeps it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from trilemma.cli.answer import print_json
from trilemma.cli.shared_options import Threads, use_threads


def command(
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json", help="File to write [default: that of this machine in the cache folder]."
        ),
    ] = None,
    threads: Threads = 0,
    seconds: Annotated[
        float,
        typer.Option(
            help="Seconds to spend at most, about; what is not reached is left out.", min=0.1, max=60.0
        ),
    ] = 45.0,
    progress: Annotated[bool, typer.Option(help="Show a progress bar on stderr.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure which operators are faster by our kernels on this machine, and which by PyTorch.

    Later runs with the same CPU, torch and threads choose by it. Nothing else should run meanwhile.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from trilemma.bench.calibration import calibrated
    from trilemma.errors import TrilemmaError
    from trilemma.files.paths import user_path
    from trilemma.ops import choice, native
    from trilemma.output.atomic import replacing, telling

    if missing := native.load():
        raise TrilemmaError(f"there is nothing to choose: {missing}; see trilemma doctor")
    use_threads(threads)
    path = user_path(out) if out is not None else choice.Machine.here().file
    if path.is_dir():
        raise typer.BadParameter(f"{path} is a folder; give a file", param_hint="--out")
    # Before the minute is spent, not after it.
    with telling(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    bar = Progress(
        TextColumn("calibrating"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=not progress or not sys.stderr.isatty(),
    )
    with bar:
        task = bar.add_task("calibrating")
        record = calibrated(seconds, report=lambda done, whole: bar.update(task, completed=done, total=whole))
    with replacing(path) as file:
        file.write(record.text().encode())
    choice.forget()
    left = sum(cell.way == "pytorch" for cell in record.cells)
    if as_json:
        print_json({"path": str(path), "cells": len(record.cells), "pytorch": left})
        return
    print(f"{len(record.cells)} cells, {left} of them left to PyTorch: {path}")
    if out is not None:
        print(f"TRILEMMA_CALIBRATION={path} uses it; without --out it is found by itself")
