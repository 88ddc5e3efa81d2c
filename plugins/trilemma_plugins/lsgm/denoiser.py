"""A network that is mixed with the exact answer for codes of the standard normal law."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trilemma import lookup
from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.process import Process
from trilemma.numerics.conversion import functional
from trilemma.numerics.time_table import TimeTable

# Fine enough that the interpolation is exact to float32.
_CELLS = 4096


class MixedScoreDenoiser(Denoiser):
    """The mixed score: ε̂ = (1 − s) σ_t z_t + s network(z_t, t),   s = sigmoid(logit), one logit a channel.

    The first term is the exact ε̂ of codes z₀ ~ N(0, I), which an encoder that is regularised towards them nearly has:
    the network begins as that prior, and learns how far the codes are from it. Of another parameterization the mixture
    is the same, of its exact answer for such codes and the network's; for v that answer is 0.

    Args:
        process: a variance-preserving process.
        parameterization: of the answer, and of the network's: x0, eps, v, score or flow.
        shape: (C, H, W) of the codes.
        network: spec of the network.
        logit: initial value of each logit, −3 … −6 where published. The smaller, the longer the prior stays normal.
        options: of the network.

    Raises:
        UsageError: for a process of several components, or what the network refuses.

    References:
        Vahdat et al., Score-based Generative Modeling in Latent Space, arXiv:2106.05931.
    """

    components = (1,)

    def __init__(
        self,
        process: Process,
        parameterization: str = "eps",
        shape: Sequence[int] = (1, 28, 28),
        *,
        network: str = "unet",
        logit: float = -6.0,
        **options: Any,
    ) -> None:
        if process.components != 1:
            raise UsageError("lsgm: the mixed score is of one component; choose a process with x alone")
        inner = lookup.denoiser(
            network, process=process, parameterization=parameterization, shape=shape, **options
        )
        super().__init__(process, parameterization, shape, list(inner.conditions.values()))
        self.draws, self.takes_to = dict(inner.draws), inner.takes_to
        self.network = inner
        self.logit = nn.Parameter(torch.full((shape[0],), float(logit)))

        def slope(t: Tensor) -> Tensor:
            """f/z of the exact answer f: with α² + σ² = V, x̂₀ = α z/V and ε̂ = σ z/V."""
            alpha, sigma = process.alpha(t), process.sigma(t)
            a, b = functional(parameterization, alpha, sigma)
            return (a * alpha + b * sigma) / (alpha.square() + sigma.square())

        start = torch.zeros((), dtype=torch.float64)
        first = 0.0 if bool(process.log_snr(start).isfinite()) else process.earliest_time
        self.normal = TimeTable(slope, first, _CELLS)

    @property
    def share(self) -> Tensor:
        """s of each channel [C]: how much of the answer is the network's."""
        return torch.sigmoid(self.logit)

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        answer = self.network(z, t, **cond)
        share = self.share.to(answer.dtype).view(1, -1, 1, 1)
        normal = self.normal(t).to(answer.dtype).view(-1, 1, 1, 1) * z.to(answer.dtype)
        return torch.lerp(normal, answer, share)
