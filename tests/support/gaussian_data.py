"""Gaussian data whose bound is known in closed form: their exact denoiser, differentiable in γ."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trilemma.interfaces.denoiser import Denoiser
from trilemma_plugins.vdm.interior import Interior
from trilemma_plugins.vdm.process import VDM

VARIANCE = 0.25
LOW, HIGH = -13.3, 5.0


class Cubic(Interior):
    """η = t³."""

    def forward(self, t: Tensor) -> Tensor:
        return t**3

    def slope(self, t: Tensor) -> Tensor:
        return 3 * t**2


class Wobbly(Interior):
    """η = t + .9 sin(4πt)/(4π): almost flat twice."""

    def forward(self, t: Tensor) -> Tensor:
        return t + 0.9 * (4 * math.pi * t).sin() / (4 * math.pi)

    def slope(self, t: Tensor) -> Tensor:
        return 1 + 0.9 * (4 * math.pi * t).cos()


class ExactNoise(Denoiser):
    """ε̂ = σ z/(α² s² + σ²), with the gradient to γ."""

    process: VDM

    def __init__(self, process: VDM, shape: tuple[int, ...] = (1, 1, 1)) -> None:
        super().__init__(process, "eps", shape)

    def forward(self, z: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        gamma = self.process.gamma(t).view(-1, *[1] * (z.dim() - 1)).to(z)
        variance = torch.sigmoid(gamma)
        return variance.sqrt() * z / ((1 - variance) * VARIANCE + variance)


def with_interior(interior: Interior, low: float = LOW, high: float = HIGH) -> VDM:
    process = VDM(gamma_min=low, gamma_max=high, endpoints=True)
    process.interior = interior
    return process


def corners(times: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Data ±s and noise ±1 at every time: their second moments are those of the Gaussians."""
    x = torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=torch.float64) * math.sqrt(VARIANCE)
    noise = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    count = len(times)
    return (
        x.repeat(count).view(-1, 1, 1, 1),
        times.repeat_interleave(4),
        noise.repeat(count).view(-1, 1, 1, 1),
    )


def closed_form(low: float = LOW, high: float = HIGH) -> float:
    """L∞ in nats a dimension."""
    return 0.5 * (high - low + math.log((VARIANCE + math.exp(low)) / (VARIANCE + math.exp(high))))
