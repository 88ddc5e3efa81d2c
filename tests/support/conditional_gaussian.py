"""Gaussian images given an image: their exact denoiser, so that a cascade of such has a law in closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from trilemma.interfaces.condition import ClassCondition, ImageCondition
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.process import Process
from trilemma.numerics.conversion import convert


class ConditionalGaussian(Denoiser):
    """x₀ | y ~ N(gain · y + offset + shift · class, variance), with y the image `low` resized by "nearest"."""

    def __init__(
        self,
        process: Process,
        parameterization: str,
        shape: tuple[int, ...],
        gain: float = 1.0,
        offset: float = 0.0,
        variance: float = 0.25,
        shift: float = 0.0,
        null: bool = False,
    ) -> None:
        low = ImageCondition("low", tuple(shape), null, "nearest")
        super().__init__(process, parameterization, shape, [low, ClassCondition("class", 3, null=0)])
        self.gain, self.offset, self.variance, self.shift = gain, offset, variance, shift

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        column = (-1, 1, 1, 1)
        host = t.to("cpu", torch.float64)
        alpha, sigma = self.process.alpha(host).view(column), self.process.sigma(host).view(column)
        mean = self.gain * cond["low"].double() + self.offset + self.shift * cond["class"].view(column)
        slope = alpha * self.variance / (alpha.square() * self.variance + sigma.square())
        p, q = convert("x0", self.parameterization, alpha, sigma)
        return ((p + q * slope) * z.double() + q * (1 - slope * alpha) * mean).to(z.dtype)
