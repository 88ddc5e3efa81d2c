"""EDM's churn: back up a little in noise before a step, so that errors made before are washed out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from trilemma.errors import UsageError
from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma_plugins.solvers.exponential import time_of


@dataclass(frozen=True)
class Churned(Sampler):
    """A solver whose steps may begin at ρ̂ = (1 + γ) ρ_t, ρ = σ/α, with γ = min(s_churn/S, √2 − 1):

        z̄̂ = z̄ + s_noise √(ρ̂² − ρ_t²) ξ,   z̄ = z/α

    where s_tmin ≤ ρ_t ≤ s_tmax, but never beyond the process's own largest ρ. The first step, which nothing comes
    before, is not churned.

    Args:
        s_churn: total amount of churn over the S steps; 0 follows the probability flow.
        s_tmin, s_tmax: noise levels ρ between which there is churn.
        s_noise: factor of the fresh noise.

    Raises:
        UsageError: for an option out of range.

    References:
        Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, arXiv:2206.00364.
    """

    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = math.inf
    s_noise: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__.lower()
        for option in ("s_churn", "s_tmin", "s_noise"):
            value = getattr(self, option)
            if not 0 <= value < math.inf:
                raise UsageError(f"{name}: {option}={value!r} is out of range; give a number of at least 0")
        if not self.s_tmax >= self.s_tmin:
            raise UsageError(
                f"{name}: s_tmax={self.s_tmax!r} lies below s_tmin={self.s_tmin!r}; give a larger one"
            )

    @property
    def deterministic(self) -> bool:
        return self.s_churn == 0

    def lifted(
        self, process: Process, steps: int, time: float, alpha: float, sigma: float
    ) -> tuple[float, float, float, float]:
        """Returns time, α and σ at ρ̂ above those of a state, and the coefficient of the noise that takes it there."""
        rho = sigma / alpha
        if self.s_churn == 0 or not self.s_tmin <= rho <= self.s_tmax:
            return time, alpha, sigma, 0.0
        up = time_of(process, -math.log(rho * (1 + min(self.s_churn / steps, math.sqrt(2) - 1))))
        alpha_hat, sigma_hat = (
            float(level) for level in process.alpha_sigma(torch.tensor(up, dtype=torch.float64))
        )
        fresh = math.sqrt(max((sigma_hat / alpha_hat) ** 2 - rho**2, 0.0))
        return up, alpha_hat, sigma_hat, self.s_noise * fresh * alpha_hat
