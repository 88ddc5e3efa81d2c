"""Noise between the stages of a cascade: quality against its level, beside one model at the same number of evaluations.

    python benchmarks/cascade.py cascade-mnist
    python benchmarks/cascade.py runs/cascade/model -n 500 --n-sweep 200 --level 0 --level 0.1 --out noise

The first stage runs with its own steps and with 4. For both, a sweep draws N_SWEEP samples from the first seed at each
level s, the same in all later stages, and takes the best; from the next seed N samples are measured at s = 0, at the
best s, stopped and noised again, and N samples of the model beside it with as many evaluations of the network.

Measurements are appended to OUT/cascade.jsonl as they come, and what is there is not measured again. OUT/cascade.md has
the table, OUT/cascade.png the curves. Then it says how the numbers compare with the goals. Needs the extra bench.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from measurements import Measurements
from quality import Goal

LEVELS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
FEW = 4
METRICS = ("frechet", "precision", "recall", "class-agreement")


@dataclass(frozen=True)
class Cell:
    """What is measured: the steps of the first stage, the level s of the later ones, or another model."""

    base: int | None
    noise: float = 0.0
    truncated: bool = False
    steps: int | None = None
    sweeping: bool = False


class Measured:
    """The measurements of a cascade and of the model beside it, kept in a file.

    Args:
        options: of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        import trilemma

        self.options = options
        self.cascade = trilemma.load(options.model, fused=True)
        if not isinstance(self.cascade, trilemma.Cascade):
            raise SystemExit(f"{options.model} is no cascade; give one")
        self.kept = Measurements(options.out / "cascade.jsonl", complete=options.table)

    @cached_property
    def beside(self) -> Any:
        """The model of one stage."""
        import trilemma

        return trilemma.load(self.options.beside, fused=True)

    @cached_property
    def evaluator(self) -> Any:
        """What measures both: that of the cascade's card."""
        from trilemma.evaluate import Evaluator

        return Evaluator.of(self.cascade, metrics=METRICS)

    @cached_property
    def own_steps(self) -> int:
        """The steps of the first stage where nothing is said."""
        from trilemma import Request
        from trilemma.engine.cascade import chunks_of

        cond = {
            name: 0 if condition.kind == "class" else condition.low
            for name, condition in self.cascade.conditions.items()
        }
        return int(chunks_of(Request(self.cascade, 1, cond=cond)).provenance["stages"][0]["steps"])

    def __call__(self, cell: Cell) -> Mapping[str, Any]:
        """Returns the record of a cell, measured now or found in the file."""
        from trilemma import Request
        from trilemma.evaluate import evaluate

        asked = self.options
        n, seed = (asked.n_sweep, asked.seed) if cell.sweeping else (asked.n, asked.seed + 1)
        model = self.cascade if cell.steps is None else self.beside
        key = {**asdict(cell), "n": n, "seed": seed, "model": _identity(model), **self.evaluator.describe()}

        def measured() -> Mapping[str, Any]:
            print(f"{cell}, n={n}", file=sys.stderr, flush=True)
            if cell.steps is None:
                later = {"noise": cell.noise, "truncated": cell.truncated and cell.noise > 0}
                stages = dict.fromkeys(range(2, len(self.cascade.stages) + 1), later)
                way: dict[str, Any] = {"stages": {1: {"steps": cell.base}, **stages}}
            else:
                way = {"sampler": asked.sampler, "steps": cell.steps}
            request = Request(
                model, n, seed=seed, batch_size=asked.batch_size, progress=sys.stderr.isatty(), **way
            )
            record = evaluate(request, self.evaluator)
            kept = {name: record[name] for name in ("metrics", "nfe", "images_per_second", "threads")}
            if asked.only_quality:
                kept["images_per_second"] = None
            return kept | {"noise": [stage.get("noise") for stage in record.get("stages") or ()]}

        return self.kept.of(key, str(cell), measured)


def _identity(model: Any) -> Any:
    """The digests of the weights of a model, of all stages of a cascade."""
    stages = getattr(model, "stages", None)
    if stages is not None:
        return [_identity(stage.model) for stage in stages]
    return (model.card or {}).get("weights", {}).get("sha256")


@dataclass(frozen=True)
class Base:
    """The measurements with the first stage at a number of steps.

    Attributes:
        steps: of the first stage.
        curve: the Fréchet distances of the sweep by the level.
        best: the level with the least of them.
        rows: the table's rows: their titles, levels and records.
    """

    steps: int
    curve: Mapping[float, float]
    best: float
    rows: Sequence[tuple[str, float | None, Mapping[str, Any]]]

    def distance(self, place: int) -> float:
        """The Fréchet distance of a row."""
        return float(self.rows[place][2]["metrics"]["frechet"])


def measured(measure: Measured, steps: int) -> Base:
    """Sweeps the level with the first stage at some steps, and measures the table's rows."""
    levels = measure.options.level or LEVELS
    curve = {
        s: float(measure(Cell(steps, s, sweeping=True))["metrics"]["frechet"]) for s in sorted({0.0, *levels})
    }
    best = min(curve, key=lambda s: curve[s])
    plain = measure(Cell(steps))
    rows = [("no noise", 0.0, plain)]
    if best:
        rows.append(("finished, noised again", best, measure(Cell(steps, best))))
        rows.append(("stopped", best, measure(Cell(steps, best, truncated=True))))
    rows.append((f"`{measure.options.beside}`", None, measure(Cell(None, steps=plain["nfe"]))))
    return Base(steps, curve, best, rows)


def table(name: str, bases: Sequence[Base], options: argparse.Namespace) -> str:
    """Returns the table in Markdown."""
    lines = [
        f"# Noise between the stages of `{name}`",
        "",
        f"Made by `python benchmarks/cascade.py`. The level s is the best of {options.n_sweep:,} samples a level, of "
        f"one seed; the rows are of {options.n:,} samples of another, `{options.beside}` by `{options.sampler}`.",
        "",
        "| steps of stage 1 | images between the stages | s | NFE | Fréchet distance ↓ | precision ↑ | recall ↑ | "
        "class agreement ↑ | images/s |",
        "|---:|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for base in bases:
        for title, level, record in base.rows:
            metrics, speed = record["metrics"], record["images_per_second"]
            cells = [
                "" if level is None else str(base.steps),
                title,
                "" if level is None else f"{level:g}",
                str(record["nfe"]),
                *("–" if metrics[name] is None else f"{metrics[name]:.3f}" for name in METRICS),
                "–" if speed is None else f"{speed:.1f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "The sweep's Fréchet distances:", ""]
    levels = sorted(bases[0].curve)
    lines.append("| steps of stage 1 | " + " | ".join(f"s = {s:g}" for s in levels) + " |")
    lines.append("|---:|" + "---:|" * len(levels))
    for base in bases:
        lines.append(f"| {base.steps} | " + " | ".join(f"{base.curve[s]:.3f}" for s in levels) + " |")
    return "\n".join([*lines, "", "![Fréchet distance against s](cascade.png)", ""])


def draw(bases: Sequence[Base], path: Path) -> None:
    """Draws the curves of the sweep."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for base in bases:
        axes.plot(list(base.curve), list(base.curve.values()), "o-", label=f"stage 1 in {base.steps} steps")
    axes.set(xlabel="level s of the noise between the stages", ylabel="Fréchet distance")
    axes.grid(True, alpha=0.3)
    axes.legend()
    figure.savefig(path, format="png", dpi=150)


def goals(bases: Sequence[Base]) -> Iterator[Goal]:
    """At the chosen level the distance is a quarter lower than at 0, and at most three times that of one stage."""
    for base in bases:
        at = f"stage 1 in {base.steps} steps"
        chosen = min(1, len(base.rows) - 2)
        yield Goal(
            f"{at}: Fréchet distance at s = {base.best:g}, against 0.75 × that at 0",
            base.distance(chosen),
            0.75 * base.distance(0),
        )
        yield Goal(f"{at}: against 3 × that of one stage", base.distance(chosen), 3 * base.distance(-1))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Quality of a cascade against the noise between its stages.")
    parser.add_argument("model", nargs="?", default="cascade-mnist", help="a cascade's name or directory")
    parser.add_argument("--beside", default="mnist", help="model of one stage")
    parser.add_argument("--sampler", default="dpmpp-2m", help="of the model beside it")
    parser.add_argument(
        "--level", type=float, action="append", help=f"level s, repeatable [default: {LEVELS}]"
    )
    parser.add_argument("-n", type=int, default=5_000, help="samples a row")
    parser.add_argument("--n-sweep", type=int, default=1_000, help="samples a level of the sweep")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=250)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--only-quality", action="store_true", help="record no images/s")
    parser.add_argument("--table", action="store_true", help="measure nothing: tabulate OUT/cascade.jsonl")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    options = parser.parse_args(arguments)
    if options.threads:
        import torch

        torch.set_num_threads(options.threads)
    measure = Measured(options)
    bases = [measured(measure, steps) for steps in dict.fromkeys((measure.own_steps, FEW))]
    options.out.mkdir(parents=True, exist_ok=True)
    text = table(measure.cascade.name, bases, options)
    (options.out / "cascade.md").write_text(text, encoding="utf-8")
    draw(bases, options.out / "cascade.png")
    print(text)
    for goal in goals(bases):
        print(goal)
    return 0


if __name__ == "__main__":
    sys.exit(main())
