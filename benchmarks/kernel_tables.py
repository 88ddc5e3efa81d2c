"""The results page of the kernels, from the records that `trilemma bench kernels --json` wrote.

trilemma bench kernels --threads 2 --json > docs/results/kernels.jsonl
trilemma bench loop --threads 2 --json > docs/results/loop.json
python benchmarks/kernel_tables.py          # writes docs/results/kernels.md
python benchmarks/kernel_tables.py --check  # only compares the records with the goals
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trilemma.bench.cell import OURS
from trilemma.bench.table import bandwidth

Record = dict[str, Any]


def table(records: Sequence[Record]) -> str:
    """One table an operator."""
    parts = []
    for op in dict.fromkeys(record["op"] for record in records):
        cells = [record for record in records if record["op"] == op]
        peers = list(dict.fromkeys(name for record in cells for name in record["ratio"]))
        heads = ["shape", "dtype", "", "by", "µs", "GB/s", "of copy", *(f"{peer} takes" for peer in peers)]
        lines = [f"## {op}", "", f"| {' | '.join(heads)} |", "|---|---|---|---|" + "---:|" * (3 + len(peers))]
        for record in cells:
            ratios = [_ratio(record["ratio"].get(peer)) for peer in peers]
            numbers = [f"{record['microseconds'][OURS]['median']:.1f}", f"{bandwidth(record):.1f}"]
            row = [record["shape"], record["dtype"], record["variant"], _way(record), *numbers]
            lines.append(f"| {' | '.join([*row, format(record['of_copy'], '.0%'), *ratios])} |")
        means = [
            _mean([record["ratio"][peer][1] for record in cells if peer in record["ratio"]]) for peer in peers
        ]
        lines.append(f"| *geometric mean* | | | | | | | {' | '.join(f'{mean:.2f}×' for mean in means)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _way(record: Record) -> str:
    # Records made before the column was have the backend alone.
    return str(record.get("way", "PyTorch" if record["backend"] == "reference" else "native"))


def _ratio(interval: Sequence[float] | None) -> str:
    return "" if interval is None else "{1:.2f}× [{0:.2f}, {2:.2f}]".format(*interval)


def _mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values)) if values else math.nan


@dataclass(frozen=True)
class Goal:
    """The geometric mean, or the least, of the ratios of some cells, and what it is to reach."""

    text: str
    op: str
    peers: tuple[str, ...]
    least: float
    chosen: Callable[[Record], bool] = lambda record: True
    every: bool = False

    def number(self, records: Sequence[Record]) -> float:
        """Against the best of the peers in each cell."""
        ratios = [
            min(record["ratio"][peer][1] for peer in self.peers if peer in record["ratio"])
            for record in records
            if record["op"] == self.op and self.chosen(record) and set(self.peers) & record["ratio"].keys()
        ]
        return math.nan if not ratios else min(ratios) if self.every else _mean(ratios)


def _shape(record: Record) -> list[int]:
    return [int(size) for size in record["shape"].split("×")]


def _large(record: Record) -> bool:
    return record["dtype"] == "float32" and math.prod(_shape(record)) >= 8 * 128 * 64 * 64


def _single(record: Record) -> bool:
    return record["dtype"] == "float32"


EAGER = ("eager", "eager, in place", "torch.compile")
SDPA = ("SDPA", "SDPA, copied")
GOALS = (
    Goal("linear_step against torch.compile", "linear_step", ("torch.compile",), 1.2, _single),
    Goal("linear_step against eager in place", "linear_step", ("eager, in place",), 2.5, _single),
    Goal("linear_step against a step of diffusers", "linear_step", ("diffusers",), 10, _single),
    Goal("keyed normals against torch.randn", "keyed_normal", ("torch.randn",), 8),
    Goal("group_norm_act, large", "group_norm_act", EAGER, 2, _large),
    Goal("group_norm_act backward, large", "group_norm_act_backward", EAGER, 1.5, _large),
    Goal(
        "attention of 256 tokens, head dim 8, float32",
        "attention",
        SDPA,
        3,
        lambda record: _single(record) and record["shape"] == "16×16×256×8",
    ),
    Goal(
        "attention, head dims 32 and 64, bfloat16",
        "attention",
        SDPA,
        2.5,
        lambda record: record["dtype"] == "bfloat16" and _shape(record)[3] in (32, 64),
    ),
    Goal("attention, the worst cell", "attention", SDPA, 1, every=True),
)


@dataclass(frozen=True)
class LoopGoal:
    """How much faster than the first row of a table a later one is to be."""

    text: str
    part: str
    row: str
    least: float

    def number(self, record: Record) -> float:
        return float(next(row["ratio"][1] for row in record[self.part] if row["name"] == self.row))


LOOP_GOALS = (
    LoopGoal("UNet2DModel, forward, fused", "forward", "fused", 1.5),
    LoopGoal("UNet2DModel, forward, fused, bfloat16", "forward", "fused, bfloat16", 2.5),
    LoopGoal("UNet2DModel, a loop, fused", "loop", "trilemma, fused", 1.5),
    LoopGoal("UNet2DModel, a loop, fused, bfloat16", "loop", "trilemma, fused, bfloat16", 2.5),
)


def loop_tables(record: Record) -> str:
    """A forward pass, and a loop."""
    lines = [f"## Networks\n\n{record['network']}, {record['n']} images; weights are the same for all rows."]
    for part, title in (("forward", "A forward pass"), ("loop", f"{record['steps']} steps of DDIM")):
        lines += ["", f"| {title} | s | the first, s | faster than the first row | largest difference |"]
        lines += ["|---|---:|---:|---:|---:|"]
        for row in record[part]:
            cells = [row["name"], f"{row['seconds']:.3f}", f"{row['first']:.3f}", _ratio(row["ratio"])]
            lines.append(f"| {' | '.join([*cells, format(row['difference'], '.1e')])} |")
    return "\n".join(
        [*lines, "", "`trilemma.fuse` says:", "", *(f"    {line}" for line in record["fusion"].splitlines())]
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=Path, default=Path("docs/results/kernels.jsonl"))
    parser.add_argument("--loop", type=Path, default=Path("docs/results/loop.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/results/kernels.md"))
    parser.add_argument("--check", action="store_true", help="only compare with the goals")
    options = parser.parse_args()
    records = [json.loads(line) for line in options.records.read_text(encoding="utf-8").splitlines() if line]
    loop = json.loads(options.loop.read_text(encoding="utf-8"))
    reached = True
    lines = []
    numbers = [(goal, goal.number(records)) for goal in GOALS]
    for goal, number in [*numbers, *((goal, goal.number(loop)) for goal in LOOP_GOALS)]:
        met = number >= goal.least
        reached &= met
        lines.append(f"{'ok  ' if met else 'FAIL'} {goal.text}: {number:.2f}×, goal {goal.least:g}×")
    print("\n".join(lines))
    if not options.check:
        first = records[0]
        where = (
            f"{first['device']} {first['isa']}, {first['threads']} threads, torch {first['torch']}, trilemma "
            f"{first['trilemma']}. Ratios say how many times as long a peer takes, with 95 % intervals, in one run; "
            "[how to read them](../kernels.md#reading-the-benchmark). Not measured on a GPU."
        )
        goals = "\n".join(f"    {line}" for line in lines)
        page = f"# Kernels, measured\n\n{where}\n\n{goals}\n\n{loop_tables(loop)}\n\n{table(records)}\n"
        options.page.write_text(page, encoding="utf-8")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
