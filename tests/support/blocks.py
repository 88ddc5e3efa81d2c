"""Gaussian images of blocks given their noised means: exact denoisers, so that a cascade has a law in closed form."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from trilemma.interfaces.condition import ImageCondition, ScalarCondition
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.process import Process
from trilemma.numerics.conversion import convert


def spread(means: Tensor) -> Tensor:
    """Returns blocks of 2×2 pixels [B, C, 2H, 2W] of their means [B, C, H, W]."""
    return means.repeat_interleave(2, 2).repeat_interleave(2, 3)


class Blocks(Denoiser):
    """x = z in every pixel of a block + e, z ~ N(mean, between), e of mean 0 in the block and else of variance within.

    The network is told z̃ = a z + s ξ, a² + s² = 1, and λ = log(a²/s²). Deaf, it takes λ for the highest there is.

    Args:
        mean: of the blocks, [2, 2] or one number.
        between, within: variances.
        low: least λ; the highest is 25.
        deaf: whether it hears no λ.
    """

    def __init__(
        self,
        process: Process,
        parameterization: str,
        shape: tuple[int, ...],
        mean: Tensor | float = 0.0,
        between: float = 0.25,
        within: float = 0.1,
        low: float = -1.5,
        deaf: bool = False,
        level: str = "low_level",
    ) -> None:
        half = (shape[0], shape[1] // 2, shape[2] // 2)
        scalar = ScalarCondition(level, low, 25.0)
        super().__init__(process, parameterization, shape, [ImageCondition("low", half), scalar])
        self.mean = torch.as_tensor(mean, dtype=torch.float64)
        self.between, self.within, self.deaf, self.level = between, within, deaf, level

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        column = (-1, 1, 1, 1)
        host = t.to("cpu", torch.float64)
        alpha, sigma = self.process.alpha(host).view(column), self.process.sigma(host).view(column)
        log_snr = cond[self.level].double().view(column)
        log_snr = torch.full_like(log_snr, 25.0) if self.deaf else log_snr
        a, s2 = torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr)
        gain = a * self.between / (a.square() * self.between + s2)
        mean = self.mean + gain * (cond["low"].double() - a * self.mean)
        left = self.between * (1 - a * gain)
        seen = avg_pool2d(z.double(), 2)
        slope = alpha * left / (alpha.square() * left + sigma.square() / 4)
        block = mean + slope * (seen - alpha * mean)
        rest = z.double() - spread(seen)
        inside = alpha * self.within / (alpha.square() * self.within + sigma.square()) * rest
        p, q = convert("x0", self.parameterization, alpha, sigma)
        return (p * z.double() + q * (spread(block) + inside)).to(z.dtype)
