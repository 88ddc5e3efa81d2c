"""The results table of the README: quality against number of steps, for each sampler.

    python benchmarks/quality.py --threads 2 --dtype bfloat16 --compile --n-long 1000 --readme README.md
    python benchmarks/quality.py --check

Rows are measured one after the other and appended to OUT/quality.jsonl as they come; a row that is already
there for the same model, feature network and configuration is not measured again, so an interrupted run
goes on where it stopped. OUT/quality.json and OUT/quality.md are written at the end, and the table is put
between `<!-- quality:begin -->` and `<!-- quality:end -->` of the file given as --readme.

The Fréchet distance of finite sets is biased upwards, the more the fewer the samples: rows of different n do
not compare. The full chain of 1000 steps, and the rows of 100, are therefore
measured beside rows of 50 steps at the same, smaller n.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- quality:begin -->", "<!-- quality:end -->"


@dataclass(frozen=True)
class Configuration:
    """One row: what is drawn and how."""

    title: str
    sampler: str
    steps: int
    n: int
    guidance: str | None = None
    untrained: bool = False


def configurations(n: int, n_long: int, clip: float | None) -> Iterator[Configuration]:
    """The rows, in the order of the table."""
    clipped = "" if clip is None else f",clip={clip}"
    ddim = f"ddim:eta=0.0,grid=trailing{clipped}"
    small = f"ddpm:variance=small,grid=trailing{clipped}"
    large = f"ddpm:variance=large,grid=trailing{clipped}"
    for steps in (50, 10, 20):  # what the goals need comes first
        yield Configuration("DDIM", ddim, steps, n)
    yield Configuration("DDIM, guidance scale 2", ddim, 50, n, guidance="cfg:scale=2.0")
    yield Configuration("DDIM, untrained U-Net", ddim, 50, n, untrained=True)
    for steps in (10, 20, 50):
        yield Configuration("strided DDPM, small variance", small, steps, n)
        yield Configuration("strided DDPM, large variance", large, steps, n)
    yield Configuration("DDPM, full chain", small, 1000, n_long)
    for steps in (50, 100) if n_long != n else (100,):
        yield Configuration("DDIM", ddim, steps, n_long)
        yield Configuration("strided DDPM, small variance", small, steps, n_long)


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Every row, measured now or found in OUT/quality.jsonl."""
    import torch

    import trilemma
    from trilemma import Request
    from trilemma.evaluate import Evaluator, evaluate, untrained

    if options.threads:
        torch.set_num_threads(options.threads)
    network = trilemma.load(options.model, dtype=getattr(torch, options.dtype))
    evaluator = Evaluator.of(network)
    card = network.card or {}
    common = {
        "model": card["model"]["name"],
        "weights": card["weights"]["sha256"],
        "network_dtype": options.dtype,
        "compiled": options.compile,
        "seed": options.seed,
        **evaluator.describe(),
    }
    log = options.out / "quality.jsonl"
    options.out.mkdir(parents=True, exist_ok=True)
    known = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    fresh_network = untrained(network, options.seed)
    if options.compile:
        import torch._inductor.config

        torch._inductor.config.freezing = True  # the weights are constants, laid out once for the CPU
        network.compile(dynamic=False)
        fresh_network.compile(dynamic=False)
    rows = []
    for configuration in configurations(options.n, options.n_long, options.clip):
        key = {**common, **asdict(configuration)}
        row = next((entry for entry in known if entry["key"] == key), None)
        if row is None and options.table:
            continue
        if row is None:
            print(f"{configuration.title}, {configuration.steps} steps, n={configuration.n}", file=sys.stderr)
            record = evaluate(
                Request(
                    fresh_network if configuration.untrained else network,
                    configuration.n,
                    sampler=configuration.sampler,
                    steps=configuration.steps,
                    guidance=configuration.guidance,
                    batch_size=options.batch_size,
                    seed=options.seed,
                    progress=sys.stderr.isatty(),
                ),
                evaluator,
            )
            row = {"key": key, "record": record}
            with log.open("a", encoding="utf-8") as file:
                print(json.dumps(row), file=file, flush=True)
        rows.append({**asdict(configuration), **row["record"]})
    return {**common, "clip": options.clip, "baseline": evaluator.baseline, "rows": rows}


def table(results: Mapping[str, Any]) -> str:
    """The rows as a Markdown table, grouped by sampler."""
    lines = [
        "| | steps | NFE | Fréchet distance ↓ | precision ↑ | recall ↑ | class agreement ↑ | images/s |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    base = results["baseline"]
    real = " | ".join(_cells(base["metrics"]))
    lines.append(f"| *real images: the {base['images']:,} of the {base['split']} split* | | | {real} | |")
    titles = list(dict.fromkeys((row["title"], row["n"]) for row in results["rows"]))
    largest = max(row["n"] for row in results["rows"])
    for title, n in sorted(titles, key=lambda entry: entry[1] != largest):
        for row in sorted(results["rows"], key=lambda row: row["steps"]):
            if (row["title"], row["n"]) == (title, n):
                shown = title if n == largest else f"{title} (n = {n:,})"
                cells = " | ".join(_cells(row["metrics"]))
                lines.append(
                    f"| {shown} | {row['steps']} | {row['nfe']} | {cells} | {row['images_per_second']:.0f} |"
                )
    return "\n".join([*lines, "", _caption(results, largest)])


def _caption(results: Mapping[str, Any], largest: int) -> str:
    """What the numbers are and what they are not."""
    counts, split, first = results["reference"]["images"], results["reference"]["split"], results["rows"][0]
    clip = "x̂₀ not clipped" if results["clip"] is None else f"x̂₀ clipped to ±{results['clip']:g}"
    compiled = ", compiled" if results["compiled"] else ""
    return (
        f"Model `{results['model']}` (weights {results['weights'][:12]}), n = {largest:,} samples where not "
        f"stated, seed {results['seed']}, {clip}, trailing grid, network in {results['network_dtype']}{compiled}. "
        f"Fréchet distance against the {counts['frechet']:,} {split} images; precision and recall (k = 3) "
        f"against {counts['precision']:,} of them in their class proportions. Features: {results['features']}; "
        "these are not Inception features: the numbers compare with no published FID. The distance is biased "
        "upwards for few samples: compare rows of equal n. "
        f"Speed: {first['threads']} CPU threads, {first['backend']} kernels."
    )


def _cells(metrics: Mapping[str, float]) -> list[str]:
    fractions = [f"{metrics[name]:.1%}" for name in ("precision", "recall", "class-agreement")]
    return [f"{metrics['frechet']:.3f}", *fractions]


@dataclass(frozen=True)
class Goal:
    """A number, its bound, and whether it holds."""

    text: str
    number: float
    bound: float
    at_most: bool = True

    @property
    def met(self) -> bool:
        return self.number <= self.bound if self.at_most else self.number >= self.bound

    def __str__(self) -> str:
        relation = "≤" if self.at_most else "≥"
        verdict = "ok  " if self.met else "FAIL"
        return f"{verdict} {self.text}: {self.number:.4g}, goal {relation} {self.bound:.4g}"


def goals(results: Mapping[str, Any]) -> list[Goal]:
    """What the bundled model must reach; a row that is missing is NaN and reaches nothing."""
    rows = results["rows"]
    largest = max(row["n"] for row in rows)

    def metric(name: str, title: str, steps: int) -> float:
        found = (r for r in rows if (r["title"], r["steps"], r["n"]) == (title, steps, largest))
        return next((float(row["metrics"][name]) for row in found), float("nan"))

    best = metric("frechet", "DDIM", 50)
    scratch = metric("frechet", "DDIM, untrained U-Net", 50)
    real = results["baseline"]["metrics"]["frechet"]
    found = [
        Goal(f"Fréchet distance at DDIM 50, against 1/20 of the untrained {scratch:.4g}", best, scratch / 20),
        Goal(f"Fréchet distance at DDIM 50, against 5 × the test images' {real:.4g}", best, 5 * real),
        Goal("recall at DDIM 50", metric("recall", "DDIM", 50), 0.6, at_most=False),
        Goal(
            "class agreement at guidance scale 2",
            metric("class-agreement", "DDIM, guidance scale 2", 50),
            0.97,
            at_most=False,
        ),
    ]
    for steps in (10, 20, 50):
        for variance in ("small", "large"):
            strided = metric("frechet", f"strided DDPM, {variance} variance", steps)
            text = f"Fréchet distance of DDIM at {steps} steps, against strided DDPM with {variance} variance"
            found.append(Goal(text, metric("frechet", "DDIM", steps), strided))
    return found


def replace_block(text: str, block: str) -> str:
    """`text` with what lies between the two markers replaced.

    Raises:
        SystemExit: where the markers are not there.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"the file has no {BEGIN} … {END}; put the two lines where the table is to stand")
    return f"{before}{BEGIN}\n{block}\n{END}{after}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure the bundled model under every sampler.")
    parser.add_argument("--model", default="mnist")
    parser.add_argument("--n", type=int, default=10_000, help="samples a row")
    parser.add_argument("--n-long", type=int, default=2_000, help="samples of the rows of the full chain")
    parser.add_argument(
        "--clip", type=lambda v: None if v == "none" else float(v), default=1.0, help="or none"
    )
    parser.add_argument("--batch-size", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument(
        "--table", action="store_true", help="measure nothing: tabulate the rows that are there"
    )
    parser.add_argument("--compile", action="store_true", help="run the networks through torch.compile")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--readme", type=Path, help="file whose marked block is replaced by the table")
    parser.add_argument("--check", action="store_true", help="only compare OUT/quality.json with the goals")
    options = parser.parse_args(arguments)

    store = options.out / "quality.json"
    if not options.check:
        results = measured(options)
        store.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (options.out / "quality.md").write_text(table(results) + "\n", encoding="utf-8")
        if options.readme:
            text = options.readme.read_text(encoding="utf-8")
            options.readme.write_text(replace_block(text, table(results)), encoding="utf-8")
    if not store.exists():
        raise SystemExit(f"{store} is not there; run this without --check first")
    reached = goals(json.loads(store.read_text(encoding="utf-8")))
    for goal in reached:
        print(goal)
    return 0 if all(goal.met for goal in reached) else 1


if __name__ == "__main__":
    sys.exit(main())
