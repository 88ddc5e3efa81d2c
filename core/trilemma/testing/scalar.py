"""Mixtures of one dimension in plain numbers, a hundred times faster than tensors: order is measured on them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch

from trilemma.interfaces.process import Process
from trilemma.testing.flow import integrate
from trilemma.testing.mixture import GaussianMixtureDenoiser


@dataclass(frozen=True)
class ScalarMixture:
    """x₀ ~ Σ_c w_c N(m_c, s_c²), with the formulas of `GaussianMixtureDenoiser`."""

    means: tuple[float, ...]
    variances: tuple[float, ...]
    weights: tuple[float, ...]

    def predict(self, z: float, alpha: float, sigma: float, parameterization: str = "x0") -> float:
        """Returns the exact prediction at a state and its levels α, σ."""
        V = [alpha * alpha * s + sigma * sigma for s in self.variances]
        centred = [z - alpha * m for m in self.means]
        logs = [
            math.log(w) - (math.log(v) + c * c / v) / 2
            for w, v, c in zip(self.weights, V, centred, strict=True)
        ]
        mass = [math.exp(entry - max(logs)) for entry in logs]
        r = [entry / sum(mass) for entry in mass]
        pull = sum(p * c / v for p, c, v in zip(r, centred, V, strict=True))
        x0 = sum(
            p * (m + alpha * s * c / v)
            for p, m, s, c, v in zip(r, self.means, self.variances, centred, V, strict=True)
        )
        match parameterization:
            case "x0":
                return x0
            case "eps":
                return sigma * pull
            case "v":
                return alpha * sigma * pull - sigma * x0
            case "flow":
                return sigma * pull - x0
        return -pull

    def denoiser(self, process: Process) -> GaussianMixtureDenoiser:
        """Returns a denoiser of the same data."""
        return GaussianMixtureDenoiser(process, self.means, self.variances, self.weights)


GAUSSIAN = ScalarMixture((0.3,), (0.25,), (1.0,))
MIXTURE = ScalarMixture((-1.0, 0.2, 1.1), (0.04, 0.12, 0.06), (0.3, 0.3, 0.4))


@cache
def scalar_flow(
    data: ScalarMixture, z: float, alphas: tuple[float, float], sigmas: tuple[float, float]
) -> float:
    """Returns the end of the probability-flow equation from z at (α, σ)_0 to (α, σ)_1, to about 1e-12."""

    def slope(u: float, y: float) -> float:
        return math.cosh(u) * data.predict(y, 1.0, math.sinh(u), "eps")

    start, end = (math.asinh(sigma / alpha) for sigma, alpha in zip(sigmas, alphas, strict=True))
    return alphas[1] * integrate(slope, z / alphas[0], start, end)


def alpha_sigma(process: Process, times: torch.Tensor) -> tuple[list[float], list[float]]:
    """Returns α, σ of a grid as plain numbers."""
    alpha, sigma = process.alpha_sigma(times)
    return alpha.tolist(), sigma.tolist()
