"""Modes of 25 normals in the plane that the same two networks find with four denoising steps and with one.

    python benchmarks/modes.py --runs runs/modes --out docs/results --picture docs/images/modes.png

trains the recipe `points-grid.toml` of `ddgan` with four steps and with one, which is a plain GAN, with the seeds of
`--seeds`; runs that are there already are taken as they are. Draws 10,000 points of each model and writes
OUT/modes.json, OUT/modes.md and the picture of the first seed.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

import trilemma
from trilemma.train.recipe import Recipe, read_recipe
from trilemma.train.trainer import train
from trilemma_plugins.points.dataset import Mixture2D

RECIPE = Path(__file__).parents[1] / "plugins/trilemma_plugins/ddgan/recipes/points-grid.toml"
STEPS = (4, 1)
# A mode is found where it has half of its share.
FOUND = 0.5
N = 10_000


def recipe_of(steps: int, seed: int) -> Recipe:
    """Returns the recipe, or the same but for the one step from time 1 to the data in place of all."""
    changes = [f"seed={seed}"]
    if steps == 1:
        objective, sampling = read_recipe(RECIPE).objective, read_recipe(RECIPE).sampling
        one = re.sub(r"steps=\d+,grid=\[.*?\]", "steps=1", objective.spec)
        sampler = re.sub(r",grid=\[.*?\]", "", str(sampling.sampler))
        changes += [f'objective.spec="{one}"', "sampling.steps=1", f'sampling.sampler="{sampler}"']
    return read_recipe(RECIPE, changes)


def model_of(steps: int, seed: int, runs: Path) -> Path:
    """Returns the directory of the trained model, which is trained where there is none."""
    folder = runs / f"steps-{steps}-seed-{seed}"
    if not (folder / "model").exists():
        train(recipe_of(steps, seed), folder)
    return folder / "model"


def law() -> Mixture2D:
    data = trilemma.dataset(recipe_of(4, 0).dataset.spec.replace("split=train", "split=test"))
    assert isinstance(data, Mixture2D)
    return data


def row(data: Mixture2D, points: Tensor) -> dict[str, float]:
    """Returns how many modes have their points, and of all modes the smallest and the largest share, times M."""
    shares = len(data.centres) * data.shares(points)
    return {
        "found": int((shares >= FOUND).sum()),
        "within half": int(((shares - 1).abs() <= 0.5).sum()),
        "least": float(shares.min()),
        "most": float(shares.max()),
        "stray": 1 - float(shares.mean()),
    }


def table(record: Mapping[str, Any]) -> str:
    modes = record["modes"]
    lines = [
        "# 25 modes in four steps and in one",
        "",
        f"By `python benchmarks/modes.py`: {record['n']:,} points of each model that the recipe",
        "[points-grid.toml](../../plugins/trilemma_plugins/ddgan/recipes/points-grid.toml) trains. With four steps and",
        f"with one the networks, their settings and the number of updates ({record['updates']:,}) are the same; one",
        "step from pure noise is a plain GAN. The settings were chosen with four steps in view; none was searched for",
        "one.",
        "",
        "A point is at a mode within three deviations of it, else it is stray. A mode is found where it has half of",
        f"its share 1/{modes}; the least and the largest share are in such shares.",
        "",
        "| denoising steps | seed | modes found | within 50 % of their share | least share | largest share | stray |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {cell['name']} | {cell['seed']} | {cell['found']} of {modes} | {cell['within half']} of {modes} | "
        f"{cell['least']:.2f} | {cell['most']:.2f} | {100 * cell['stray']:.1f} % |"
        for cell in record["cells"]
    ]
    lines += ["", "![Points of the data, in one step and in four](../images/modes.png)"]
    return "\n".join(lines) + "\n"


def draw_picture(panels: Sequence[tuple[str, Tensor]], path: Path) -> None:
    figure = Figure(figsize=(4 * len(panels), 4.3), layout="constrained")
    for place, (title, points) in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), place)
        x, y = points.flatten(1).unbind(1)
        axes.plot(x, y, ",", color="tab:blue")
        axes.set(xlim=(-1, 1), ylim=(-1, 1), aspect="equal", title=title, xticks=(), yticks=())
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/modes"))
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--picture", type=Path, default=Path("docs/images/modes.png"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    data = law()
    real = data.batch(torch.arange(N), torch.float32)[0]
    cells, panels = [{"name": "data", "seed": "", **row(data, real)}], [("data", real)]
    for steps in sorted(STEPS):
        name = f"{steps}" if steps > 1 else "1, a plain GAN"
        for seed in options.seeds:
            model = model_of(steps, seed, options.runs)
            points = trilemma.sample(model, N, seed=1, batch_size=N).samples
            cells.append({"name": name, "seed": seed, **row(data, points)})
            if seed == options.seeds[0]:
                panels.append((f"{cells[-1]['found']} of {len(data.centres)} modes, T = {steps}", points))
    record = {"n": N, "modes": len(data.centres), "updates": recipe_of(4, 0).steps, "cells": cells}
    (options.out / "modes.json").write_text(json.dumps(record, indent=1) + "\n")
    (options.out / "modes.md").write_text(table(record))
    draw_picture(panels, options.picture)


if __name__ == "__main__":
    main()
