"""Records as tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from trilemma.bench.cell import COPY, OURS
from trilemma.bench.comparison import Key, change, key
from trilemma.machine.console import console, plain_table


class KernelTable:
    """Prints a line a cell as it comes, under one heading an operator; what does not fit goes on lines below it."""

    def __init__(self, earlier: Mapping[Key, Mapping[str, Any]]) -> None:
        self.earlier = earlier
        self.console = console()
        self.op = ""

    def show(self, record: Mapping[str, Any]) -> None:
        if record["op"] != self.op:
            self.op = str(record["op"])
            self.console.print(f"\n{self.op}", style="bold")
            self._lines(
                "  ",
                [
                    f"{record['device']} {record['isa']}, {record['threads']} threads",
                    record["torch"],
                    f"ways by {record['choice']['source']} {record['choice']['sha256'][:12]}",
                ],
            )
        ours = record["microseconds"][OURS]
        head = (
            f"  {record['shape']:>16} {record['dtype']:>8} {record['variant']:<10} {ours['median']:>9.1f} µs "
            f"{bandwidth(record):6.1f} GB/s {record['of_copy']:4.0%} of copy"
        )
        rest = [f"by {record['way']}"]
        rest += [
            f"{name} {middle:.2f}× [{low:.2f}, {high:.2f}]"
            for name, (low, middle, high) in record["ratio"].items()
        ]
        if key(record) in self.earlier:
            rest.append(f"{change(record, self.earlier[key(record)]):.2f}× of earlier")
        whole = "  ".join([head, *rest])
        if len(whole) <= self.console.width:
            self.console.print(whole, soft_wrap=True)
        else:
            self._lines("", [head])
            self._lines("      ", rest)
        for name, why in record["dropped"].items():
            self._lines("      ", [f"left out {name}:", *why.split()], " ")

    def _lines(self, indent: str, parts: Sequence[str], between: str = "  ") -> None:
        """Prints the parts on as many lines as they need."""
        line = indent
        for part in parts:
            if line.strip() and len(line) + len(between) + len(part) > self.console.width:
                self.console.print(line.rstrip(), soft_wrap=True)
                line = indent
            line += (between if line.strip() else "") + part
        if line.strip():
            self.console.print(line.rstrip(), soft_wrap=True)

    def summarise(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Prints the geometric means of the ratios, by operator and peer, and the cells that a peer wins."""
        self.console.print(
            "\nhow many times faster, geometric mean over the cells, and the least", style="bold"
        )
        table = plain_table("operator", "than", "mean", "least")
        peers = list(dict.fromkeys(name for record in records for name in record["ratio"]))
        for op in dict.fromkeys(record["op"] for record in records):
            for peer in peers:
                found = _mean_and_least([r for r in records if r["op"] == op], peer)
                if found is not None:
                    table.add_row(op, peer, *(f"{value:.2f}×" for value in found))
        self.console.print(table)
        for record in records:
            for name, (_, middle, _) in record["ratio"].items():
                if middle < 1:
                    shape = f"{record['op']} {record['shape']} {record['dtype']} {record['variant']}"
                    self._lines("", f"{name} is faster at {shape}: {middle:.2f}×".split(), " ")


def _mean_and_least(records: Sequence[Mapping[str, Any]], peer: str) -> tuple[float, float] | None:
    ratios = [record["ratio"][peer][1] for record in records if peer in record["ratio"]]
    return (math.exp(sum(map(math.log, ratios)) / len(ratios)), min(ratios)) if ratios else None


def bandwidth(record: Mapping[str, Any]) -> float:
    """Returns the gigabytes a second, counted at the least bytes."""
    return float(record["least_bytes"] / record["microseconds"][OURS]["median"] / 1e3)


def copy_bandwidth(record: Mapping[str, Any]) -> float:
    """Returns the gigabytes a second of the copy in the same run."""
    return float(record["least_bytes"] / record["microseconds"][COPY]["median"] / 1e3)


def show_loop(record: Mapping[str, Any]) -> None:
    """Returns the table of `trilemma bench loop`."""
    out = console()
    out.print(f"{record['network']}; {record['threads']} threads, torch {record['torch']}")
    titles = {
        "forward": f"a forward pass of {record['n']} images",
        "loop": f"{record['n']} images in {record['steps']} steps of DDIM",
    }
    for part, title in titles.items():
        out.print(f"\n{title}", style="bold")
        table = plain_table("", "seconds", "first, s", "speed-up", "difference")
        for column in table.columns[1:]:
            column.justify = "right"
        for row in record[part]:
            table.add_row(
                row["name"],
                f"{row['seconds']:.3f}",
                f"{row['first']:.3f}",
                f"{row['ratio'][1]:.2f}× [{row['ratio'][0]:.2f}, {row['ratio'][2]:.2f}]",
                f"{row['difference']:.1e}",
            )
        out.print(table)
    out.print(record["fusion"])


def show_samplers(records: Sequence[Mapping[str, Any]]) -> None:
    """Returns the table of `trilemma bench samplers`, and below it the cells that could not be run."""
    out = console()
    first = records[0]["key"]
    out.print(
        f"{first['model']['name']}: {first['n']:,} samples a cell, network in {first['network_dtype']}",
        style="bold",
    )
    several = any(record.get("own") for record in records)
    metrics = list(dict.fromkeys(name for record in records for name in record["metrics"]))
    titles = [name.replace("-", "\n") for name in metrics]
    table = plain_table(
        "model or sampler" if several else "sampler", "budget", "steps", "NFE", *titles, "images\n/s"
    )
    table.padding = (0, 1, 0, 0)
    table.columns[0].min_width = 16
    for column in table.columns[1:]:
        column.justify, column.overflow, column.min_width = "right", "fold", 3
    not_run = []
    for record in sorted(records, key=_name):
        key, name = record["key"], _name(record)
        if record["reason"] is not None:
            at = "" if record.get("own") else f" at {record['budget']}"
            not_run.append(f"not run: {name}{at}: {record['reason']}")
            continue
        values = [record["metrics"].get(name) for name in metrics]
        cells = ["–" if value is None else f"{value:.4g}" for value in values]
        speed = record["images_per_second"]
        numbers = (record["budget"], key["steps"], record["nfe"])
        table.add_row(name, *map(str, numbers), *cells, "" if speed is None else f"{speed:.1f}")
    out.print(table)
    for line in not_run:
        out.print(line)


def _name(record: Mapping[str, Any]) -> str:
    """The sampler of a record, or the model that is drawn as its card says, with its sampler."""
    key = record["key"]
    return f"{key['model']['name']}, {key['sampler']}" if record.get("own") else str(key["sampler"])
