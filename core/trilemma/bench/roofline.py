"""A roofline plot of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trilemma.bench.table import bandwidth, copy_bandwidth
from trilemma.errors import UsageError


def plot_roofline(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Plots the achieved bandwidth of every cell over the bytes that it moves, under the copy's in the same run.

    Raises:
        UsageError: where matplotlib is missing or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError('a roofline needs matplotlib; pip install "trilemma[bench]"') from error
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for op in dict.fromkeys(record["op"] for record in records):
        cells = sorted((r for r in records if r["op"] == op), key=lambda record: record["least_bytes"])
        sizes = [record["least_bytes"] / 1e6 for record in cells]
        axes.plot(sizes, [bandwidth(record) for record in cells], "o", label=op)
    ordered = sorted(records, key=lambda record: record["least_bytes"])
    axes.plot(
        [record["least_bytes"] / 1e6 for record in ordered],
        [copy_bandwidth(record) for record in ordered],
        "k--",
        label="copy, same run",
    )
    axes.set(xscale="log", yscale="log", xlabel="least bytes moved, MB", ylabel="GB/s")
    if records:
        first = records[0]
        axes.set_title(
            f"{first['device']} {first['isa']}, {first['threads']} threads, torch {first['torch']}"
        )
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; choose another file") from error
