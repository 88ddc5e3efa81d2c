"""Records as tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from trilemma.bench.cell import COPY, OURS
from trilemma.bench.comparison import Key, change, key


class KernelTable:
    """Prints a line a cell as it comes, under one heading an operator."""

    def __init__(self, earlier: Mapping[Key, Mapping[str, Any]]) -> None:
        self.earlier = earlier
        self.console = Console()
        self.op = ""

    def show(self, record: Mapping[str, Any]) -> None:
        if record["op"] != self.op:
            self.op = str(record["op"])
            where = (
                f"{record['device']} {record['isa']}, {record['threads']} threads, torch {record['torch']}"
            )
            self.console.print(f"\n[bold]{self.op}[/bold]  ({where})", highlight=False)
        ours = record["microseconds"][OURS]
        peers = "  ".join(
            f"{name} {middle:.2f}× [{low:.2f}, {high:.2f}]"
            for name, (low, middle, high) in record["ratio"].items()
        )
        line = (
            f"  {record['shape']:>16} {record['dtype']:>8} {record['variant']:<12} {ours['median']:>10.1f} µs  "
            f"{bandwidth(record):6.1f} GB/s  {record['of_copy']:4.0%} of copy   {peers}"
        )
        if key(record) in self.earlier:
            line += f"   {change(record, self.earlier[key(record)]):.2f}× of earlier"
        self.console.print(line, highlight=False, soft_wrap=True)

    def summarise(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Geometric means of the ratios, by operator and peer, and the cells that a peer wins."""
        table = Table(title="how many times faster than …, geometric mean (least)")
        peers = list(dict.fromkeys(name for record in records for name in record["ratio"]))
        for column in ("operator", *peers):
            table.add_column(column, justify="left" if column == "operator" else "right")
        for op in dict.fromkeys(record["op"] for record in records):
            cells = [_mean_and_least([r for r in records if r["op"] == op], peer) for peer in peers]
            table.add_row(op, *cells)
        self.console.print(table)
        for record in records:
            for name, (_, middle, _) in record["ratio"].items():
                if middle < 1:
                    shape = f"{record['op']} {record['shape']} {record['dtype']} {record['variant']}"
                    self.console.print(f"{name} is faster at {shape}: {middle:.2f}×", highlight=False)


def _mean_and_least(records: Sequence[Mapping[str, Any]], peer: str) -> str:
    ratios = [record["ratio"][peer][1] for record in records if peer in record["ratio"]]
    if not ratios:
        return ""
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    return f"{mean:.2f}× ({min(ratios):.2f}×)"


def bandwidth(record: Mapping[str, Any]) -> float:
    """Gigabytes a second, counted at the least bytes."""
    return float(record["least_bytes"] / record["microseconds"][OURS]["median"] / 1e3)


def copy_bandwidth(record: Mapping[str, Any]) -> float:
    """Gigabytes a second of the copy in the same run."""
    return float(record["least_bytes"] / record["microseconds"][COPY]["median"] / 1e3)


def show_loop(record: Mapping[str, Any]) -> None:
    """The table of `trilemma bench loop`."""
    console = Console()
    where = f"{record['network']}; {record['threads']} threads, torch {record['torch']}"
    titles = {
        "forward": f"a forward pass of {record['n']} images",
        "loop": f"{record['n']} images in {record['steps']} steps of DDIM",
    }
    for part, title in titles.items():
        table = Table(title=f"{title}, {where}")
        for column in ("", "seconds", "the first, s", "speed-up", "largest difference"):
            table.add_column(column, justify="left" if not column else "right")
        for row in record[part]:
            table.add_row(
                row["name"],
                f"{row['seconds']:.3f}",
                f"{row['first']:.3f}",
                f"{row['ratio'][1]:.2f}× [{row['ratio'][0]:.2f}, {row['ratio'][2]:.2f}]",
                f"{row['difference']:.1e}",
            )
        console.print(table)
    console.print(record["fusion"], highlight=False)


def show_samplers(records: Sequence[Mapping[str, Any]]) -> None:
    """The table of `trilemma bench samplers`."""
    console = Console()
    first = records[0]["key"]
    table = Table(
        title=f"{first['model']['name']}: {first['n']:,} samples a cell, network in {first['network_dtype']}"
    )
    metrics = list(dict.fromkeys(name for record in records for name in record["metrics"]))
    table.add_column("sampler", overflow="fold", min_width=16)
    for column in ("budget", "steps", "NFE", *metrics, "images/s"):
        table.add_column(column, justify="right")
    for record in sorted(records, key=lambda record: str(record["key"]["sampler"])):
        key = record["key"]
        if record["reason"] is not None:
            table.add_row(key["sampler"], str(record["budget"]), "", "", f"not run: {record['reason']}")
            continue
        values = [record["metrics"].get(name) for name in metrics]
        cells = ["not applicable" if value is None else f"{value:.4g}" for value in values]
        speed = record["images_per_second"]
        numbers = (record["budget"], key["steps"], record["nfe"])
        table.add_row(key["sampler"], *map(str, numbers), *cells, "" if speed is None else f"{speed:.1f}")
    console.print(table)
