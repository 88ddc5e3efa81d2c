"""Compares the density e^F of an energy of points with that of the data, and chains of several lengths.

    python benchmarks/recovery_density.py runs/recovery/recovery/model [--chains 30 300] [--n 2000]

The model is that of plugins/trilemma_plugins/recovery/recipes/points.toml. The density is that of its last level, on a
grid; of the samples, the numbers in each mode and the median distance to its centre are printed.
"""

from __future__ import annotations

import argparse

import torch

import trilemma
from trilemma_plugins.points.dataset import Mixture2D
from trilemma_plugins.recovery.sampler import RecoveryLangevin


def divergence(model: trilemma.Denoiser, data: Mixture2D, t: float) -> float:
    """Returns the KL divergence, in nats, of e^F at time t from the law of the data there, both on a grid."""
    alpha, sigma = (
        float(level) for level in model.process.alpha_sigma(torch.tensor([t], dtype=torch.float64))
    )
    side = torch.linspace(-1.3, 1.3, 201)
    grid = torch.cartesian_prod(side, side)
    with torch.no_grad():
        parts = [trilemma.energy(model, part.view(-1, 2, 1, 1), t) for part in grid.split(4096)]
    found = torch.cat(parts).double().log_softmax(0)
    off = torch.cdist(grid.double(), alpha * data.centres).square()
    law = (-off / (2 * (alpha**2 * data.deviation**2 + sigma**2))).logsumexp(1).log_softmax(0)
    return float((law.exp() * (law - found)).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--chains", type=int, nargs="+", default=[30, 300])
    parser.add_argument("--n", type=int, default=2000)
    asked = parser.parse_args()
    model = trilemma.load(asked.model)
    usual = trilemma.sampler(model.usual_sampler or "ddim")
    if not isinstance(usual, RecoveryLangevin):
        parser.error(f"{asked.model} is not drawn by recovery-langevin; give a model of the recipe of points")
    data = Mixture2D()
    print(f"KL of e^F from the data's density at t = {usual.end:g}: {divergence(model, data, usual.end):.4f}")
    for chain in asked.chains:
        sampler = f"{model.usual_sampler},chain={chain}"
        drawn = trilemma.sample(model, asked.n, sampler=sampler, seed=5, batch_size=asked.n).samples
        near = torch.cdist(drawn.flatten(1).double(), data.centres)
        counts = torch.bincount(near.argmin(1), minlength=len(data.centres)).tolist()
        print(f"K = {chain}: modes {counts}, median distance {float(near.min(1).values.median()):.4f}")


if __name__ == "__main__":
    main()
