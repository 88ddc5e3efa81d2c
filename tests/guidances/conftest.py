"""Exact models for the guidances."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.process import Process
from trilemma.numerics.conversion import convert
from trilemma_plugins.ddpm.process import DiscreteVP

MEANS, VARIANCE = (0.5, -0.3), 0.04


class Mixture(Denoiser):
    """The exact denoiser of ½N(m₀, s²I) + ½N(m₁, s²I), and the logits of its exact noisy classifier."""

    def __init__(self, process: Process, parameterization: str, shape: tuple[int, ...] = (1, 2, 2)) -> None:
        super().__init__(process, parameterization, shape)

    def logits(self, z: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = self.process.scales(t, z)
        spread = alpha**2 * VARIANCE + sigma**2
        return torch.stack([-((z - alpha * m) ** 2 / (2 * spread)).sum((1, 2, 3)) for m in MEANS], 1)

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        alpha, sigma = self.process.scales(t, z)
        share = self.logits(z, t).softmax(1)
        mean = (share * torch.tensor(MEANS, dtype=z.dtype)).sum(1).view(-1, 1, 1, 1)
        x0 = mean + alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2) * (z - alpha * mean)
        p, q = convert("x0", self.parameterization, alpha, sigma)
        return p * z + q * x0


class Posterior(nn.Module):
    """Logits of p(y | z_t, t) of a mixture."""

    def __init__(self, mixture: Mixture) -> None:
        super().__init__()
        self.mixture = mixture

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        return self.mixture.logits(z, t)


@pytest.fixture(scope="session")
def process() -> Process:
    return DiscreteVP(schedule="cosine", T=100)


@pytest.fixture(params=["x0", "eps", "v", "score"])
def mixture(request: pytest.FixtureRequest, process: Process) -> Mixture:
    return Mixture(process, request.param)


@pytest.fixture
def posterior(mixture: Mixture) -> Posterior:
    return Posterior(mixture)
