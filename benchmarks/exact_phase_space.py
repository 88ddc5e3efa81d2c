"""Samplers in phase space by the exact score of the points' mixture: what is left is their own error.

    python benchmarks/exact_phase_space.py [--out docs/results]

Writes OUT/cld-exact.json and OUT/cld-exact.md: Fréchet distance by evaluations a sample, on the features of the points.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from trilemma import Request, lookup
from trilemma.evaluate import Evaluator, evaluate
from trilemma.testing.mixture import GaussianMixtureDenoiser
from trilemma_plugins.points.dataset import Mixture2D

PROCESS = "cld:schedule=linear"
SAMPLERS = ("gddim", "gddim:points=3", "sscs:grid=squares", "euler-maruyama:grid=squares")


def measured(n: int, budgets: list[int]) -> dict[str, Any]:
    law = Mixture2D(n=1)
    model = GaussianMixtureDenoiser(
        lookup.process(PROCESS),
        [centre.view(2, 1, 1) for centre in law.centres],
        law.deviation**2,
        parameterization="eps",
        shape=(2, 1, 1),
    )
    evaluator = Evaluator("mixture2d", "points-features", ("frechet",))
    cells = {
        sampler: {
            steps: evaluate(Request(model, sampler=sampler, steps=steps, n=n, batch_size=2500), evaluator)[
                "metrics"
            ]["frechet"]
            for steps in budgets
        }
        for sampler in SAMPLERS
    }
    baseline = evaluator.baseline["metrics"]["frechet"]
    return {"process": PROCESS, "n": n, "seed": 0, "real": baseline, "frechet": cells}


def table(record: dict[str, Any]) -> str:
    budgets = list(next(iter(record["frechet"].values())))
    lines = [
        "# Samplers in phase space, exact score",
        "",
        f"Fréchet distance of {record['n']:,} points by evaluations a sample; `mixture2d`, "
        f"process `{record['process']}`. Points of the test split: {record['real']:.5f}.",
        "",
        "| sampler | " + " | ".join(str(budget) for budget in budgets) + " |",
        "|---|" + "---:|" * len(budgets),
    ]
    for sampler, row in record["frechet"].items():
        lines.append(f"| `{sampler}` | " + " | ".join(f"{row[budget]:.5f}" for budget in budgets) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("-n", type=int, default=10_000)
    parser.add_argument("--nfe", type=int, nargs="+", default=[20, 50, 100, 200, 500])
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    record = measured(options.n, options.nfe)
    (options.out / "cld-exact.json").write_text(json.dumps(record, indent=1) + "\n")
    (options.out / "cld-exact.md").write_text(table(record))


if __name__ == "__main__":
    main()
