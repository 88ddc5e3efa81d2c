"""Generators that know the data: which answer keeps the law of every state, and which does not.

A generator that draws x₀ from p(x₀ | z_t) does, over any number of steps. Its mean does not, which is what a network
trained by least squares answers.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import pytest
import torch
from torch import Tensor

import trilemma
from trilemma.interfaces.denoiser import Denoiser
from trilemma.numerics.broadcasting import column
from trilemma_plugins.ddpm.process import DiscreteVP

# Of three normals in one dimension, far apart beside their width.
WEIGHTS = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
MEANS = torch.tensor([-0.8, 0.1, 0.7], dtype=torch.float64)
DEVIATION = 0.05
N = 40_000
# √N · sup |F_N − F| is above c with probability 2 exp(−2c²) = 2·10⁻⁸, by Massart's inequality.
LARGEST = 3.035


class Oracle(Denoiser):
    """x₀ drawn from p(x₀ | z_t) of the mixture, or the mean of that."""

    draws: ClassVar = {"latent": (2,)}

    def __init__(self, process: DiscreteVP, answer: Literal["draw", "mean"]) -> None:
        super().__init__(process, "x0", (1, 1, 1))
        self.answer = answer

    def forward(self, z: Tensor, t: Tensor, **told: Tensor) -> Tensor:
        x, (alpha, sigma) = z.flatten(1), self.process.alpha_sigma(t.double())
        alpha, sigma = column(alpha, x), column(sigma, x)
        variance = (alpha * DEVIATION).square() + sigma.square()
        shares = (WEIGHTS.log() - (x - alpha * MEANS).square() / (2 * variance)).softmax(1)
        means = MEANS + alpha * DEVIATION**2 / variance * (x - alpha * MEANS)
        if self.answer == "mean":
            return (shares * means).sum(1).view(z.shape)
        which, within = told["latent"].double().unbind(1)
        uniform = torch.special.ndtr(which)[:, None]
        component = (shares.cumsum(1) < uniform).sum(1, keepdim=True).clamp_max(len(MEANS) - 1)
        spread = DEVIATION * sigma / variance.sqrt()
        return (means.gather(1, component) + spread * within[:, None]).view(z.shape)


class Truth(Denoiser):
    """The very data that the states were made of."""

    def __init__(self, process: DiscreteVP, x0: Tensor) -> None:
        super().__init__(process, "x0", (1, 1, 1))
        self.x0 = x0

    def forward(self, z: Tensor, t: Tensor, **told: Tensor) -> Tensor:
        return self.x0


def data() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    component = torch.multinomial(WEIGHTS, N, replacement=True, generator=generator)
    noise = torch.randn(N, generator=generator, dtype=torch.float64)
    return (MEANS[component] + DEVIATION * noise).view(N, 1, 1, 1)


def distances(model: Denoiser, x0: Tensor) -> list[float]:
    """√N · sup |F_N − F| of the states at every time of the table below 1, the last being the samples."""
    process = model.process
    generator = torch.Generator().manual_seed(1)
    alpha, sigma = (float(entry) for entry in process.alpha_sigma(torch.ones(1, dtype=torch.float64)))
    start = alpha * x0 + sigma * torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    states = []
    trilemma.sample(
        model,
        N,
        sampler="ddim:eta=1",
        steps=process.table,
        latent=start,
        dtype=torch.float64,
        batch_size=N,
        seed=2,
        callback=lambda row, rows, t, state: states.append((t, state.flatten().clone())),
    )
    assert len(states) == process.table
    return [distance(state, *process.alpha_sigma(torch.tensor([t]).double())) for t, state in states]


def distance(state: Tensor, alpha: Tensor, sigma: Tensor) -> float:
    scale = ((alpha * DEVIATION).square() + sigma.square()).sqrt()
    x = state.sort().values
    law = (WEIGHTS * torch.special.ndtr((x[:, None] - alpha * MEANS) / scale)).sum(1)
    ranks = torch.arange(len(x) + 1, dtype=torch.float64) / len(x)
    return math.sqrt(len(x)) * float(torch.maximum(ranks[1:] - law, law - ranks[:-1]).max())


@pytest.mark.parametrize("steps", range(1, 9))
def test_an_oracle_that_draws_keeps_every_marginal(steps: int) -> None:
    found = distances(Oracle(DiscreteVP("few", T=steps), "draw"), data())
    assert max(found) < LARGEST


@pytest.mark.parametrize("steps", [1, 4, 8])
def test_its_mean_keeps_them_not(steps: int) -> None:
    """By the same test; the states near the data are far off, not by a little."""
    found = distances(Oracle(DiscreteVP("few", T=steps), "mean"), data())
    assert found[-1] > 3 * LARGEST


def test_the_true_data_keep_every_marginal() -> None:
    x0 = data()
    model = Truth(DiscreteVP("few", T=4), x0)
    assert max(distances(model, x0)) < LARGEST
