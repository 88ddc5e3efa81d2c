"""Few steps: the solvers of a model at few evaluations, beside its students and the other models of few steps.

    python benchmarks/few_steps.py
    python benchmarks/few_steps.py -n 1000 --stem all-models
    python benchmarks/few_steps.py --teacher runs/a/model --model runs/b/model --model runs/c/model -n 500 --out few

Measures the quality of N samples a cell as `trilemma bench samplers MODEL... --only-quality --out OUT/few-steps.jsonl`
does, and in a second pass, for which nothing else may run, the images/s of N_SPEED, OUT/few-steps-speed.jsonl. Both
go on where they stopped. OUT/few-steps.md has one table, OUT/few-steps-nfe.png and OUT/few-steps-triangle.png the
pictures. Without --model it takes the bundled models that are installed. Then it says how the students compare with the
goals. Needs the extra bench.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import sampler_tables
from quality import Goal

BUNDLED = ("mnist-8", "mnist-4", "mnist-1", "ddgan-mnist", "recovery-mnist")
# Clipping is for the better at few steps.
SOLVERS = ("ddim:clip=1", "ddpm:clip=1", "dpmpp-2m:clip=1", "unipc:clip=1", "sa-solver:tau=0.5,clip=1")
BUDGETS = (1, 2, 4, 8, 10, 50)


@dataclass(frozen=True)
class Bounds:
    """Bounds of a model: times DDIM's Fréchet distance at a budget, a recall, times its images/s."""

    budget: int
    factor: float
    recall: float
    speed: float = 1.0


BOUNDS = {
    "mnist-4": Bounds(50, 1.0, 0.8),
    "mnist-1": Bounds(10, 1.0, 0.8),
    "ddgan-mnist": Bounds(50, 5.0, 0.7, 10.0),
}


def measure(options: argparse.Namespace) -> None:
    """Measures all cells that the two files do not hold."""
    options.out.mkdir(parents=True, exist_ok=True)
    quality, speed = stores(options)
    bench(options, quality, options.n, ["--only-quality"])
    if options.n_speed:
        bench(options, speed, options.n_speed, [])


def stores(options: argparse.Namespace) -> tuple[Path, Path]:
    """The files of quality and of speed, which depends on no number of samples."""
    return options.out / f"{options.stem}.jsonl", options.out / "few-steps-speed.jsonl"


def bench(options: argparse.Namespace, store: Path, n: int, flags: Sequence[str]) -> None:
    """Runs `trilemma bench samplers` on all models."""
    from trilemma.cli.app import main as trilemma

    models = options.model or installed(BUNDLED)
    command = ["bench", "samplers", options.teacher, *models, "--out", str(store), "-n", str(n), *flags]
    for flag, values in (
        ("--sampler", options.sampler or SOLVERS),
        ("--nfe", options.nfe or BUDGETS),
        ("--metric", sampler_tables.METRICS),
    ):
        for value in values:
            command += [flag, str(value)]
    command += ["--dtype", options.dtype, "--threads", str(options.threads), "--seed", str(options.seed)]
    command += ["--batch-size", str(options.batch_size)]
    if code := trilemma(command):
        raise SystemExit(code)


def found(options: argparse.Namespace) -> list[sampler_tables.Record]:
    """The cells of both files."""
    quality, speed = stores(options)
    records = sampler_tables.read(quality)
    return sampler_tables.with_speed(records, sampler_tables.read(speed)) if speed.exists() else records


def installed(names: Sequence[str]) -> list[str]:
    """The bundled models among these names; the others are told on stderr."""
    from trilemma.registry import catalog

    known = {entry.spec.name for entry in catalog().components("model")}
    if missing := [name for name in names if name not in known]:
        print(f"not installed, and left out: {', '.join(missing)}", file=sys.stderr)
    return [name for name in names if name in known]


def goals(records: Sequence[sampler_tables.Record]) -> Iterator[Goal]:
    """The bounds of those models that have some and were measured."""
    own = {r["key"]["model"]["name"]: r for r in sampler_tables.of_models(records) if r["reason"] is None}
    ddim = {
        r["budget"]: r
        for r in sampler_tables.of_samplers(records)
        if r["key"]["sampler"].partition(":")[0] == "ddim" and r["reason"] is None
    }
    for name, bounds in BOUNDS.items():
        if name not in own or bounds.budget not in ddim:
            continue
        found, other = own[name], ddim[bounds.budget]
        beside = f"DDIM at {bounds.budget}"
        text = f"Fréchet distance of {name}, against {bounds.factor:g} × {beside}"
        yield Goal(text, found["metrics"]["frechet"], bounds.factor * other["metrics"]["frechet"])
        yield Goal(f"recall of {name}", found["metrics"]["recall"], bounds.recall, at_most=False)
        if found["images_per_second"] and other["images_per_second"]:
            faster = found["images_per_second"] / other["images_per_second"]
            yield Goal(f"images/s of {name}, times those of {beside}", faster, bounds.speed, at_most=False)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Models of few steps beside the solvers of a teacher.")
    parser.add_argument("--teacher", default="mnist", help="model whose solvers are measured")
    parser.add_argument("--model", action="append", help="model beside it [default: the bundled ones]")
    parser.add_argument("--sampler", action="append", help="solver of the teacher, repeatable")
    parser.add_argument("--nfe", type=int, action="append", help="budget of the solvers, repeatable")
    parser.add_argument("-n", type=int, default=10_000, help="samples a cell")
    parser.add_argument("--n-speed", type=int, default=250, help="samples a cell for images/s; 0 for none")
    parser.add_argument("--batch-size", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--table", action="store_true", help="measure nothing: tabulate the files of OUT")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--stem", default="few-steps", help="how the files' names begin")
    options = parser.parse_args(arguments)
    if not options.table:
        measure(options)
    records = found(options)
    print(sampler_tables.write(records, options.out, options.stem, "Few steps"))
    for goal in goals(records):
        print(goal)
    return 0


if __name__ == "__main__":
    sys.exit(main())
