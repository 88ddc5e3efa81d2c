"""The exact denoiser of Gaussian data: a network whose samples are known in closed form."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trilemma.interfaces.condition import ClassCondition
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.process import Process
from trilemma.numerics.conversion import convert


class GaussianDenoiser(Denoiser):
    """Answers for data x₀ ~ N(m, s²), independent in every dimension, with the exact posterior mean

        x̂₀ = m + α s²/(α² s² + σ²) · (z − α m),

    read in any parameterization. With several means it takes the condition `class`, and the last one is the
    null class. The probability-flow ODE keeps (z − α m)/√(α² s² + σ²) constant.

    Args:
        process: with one component.
        mean: m, or one a class.
        variance: s².
        parameterization: of its output.
        shape: of one sample.
    """

    def __init__(
        self,
        process: Process,
        mean: float | Sequence[float] = 0.0,
        variance: float = 0.25,
        parameterization: str = "eps",
        shape: Sequence[int] = (1, 1, 1),
    ) -> None:
        means = [float(mean)] if isinstance(mean, int | float) else [float(entry) for entry in mean]
        conditions = [ClassCondition("class", len(means) - 1, null=len(means) - 1)] if len(means) > 1 else []
        super().__init__(process, parameterization, shape, conditions)
        self.means = means
        self.variance = variance

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        column = (-1,) + (1,) * (z.dim() - 1)
        host = t.to("cpu", torch.float64)
        alpha, sigma = self.process.alpha(host).view(column), self.process.sigma(host).view(column)
        labels = cond["class"].cpu() if cond else torch.zeros(len(z), dtype=torch.int64)
        mean = torch.tensor(self.means, dtype=torch.float64)[labels].view(column)
        gain = alpha * self.variance / (alpha.square() * self.variance + sigma.square())
        p, q = convert("x0", self.parameterization, alpha, sigma)
        # x̂₀ = (1 − gain·α)·m + gain·z, then p·z + q·x̂₀.
        slope, offset = p + q * gain, q * (1 - gain * alpha) * mean
        return slope.to(z.device, z.dtype) * z + offset.to(z.device, z.dtype)
