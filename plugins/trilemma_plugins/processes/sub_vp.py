"""The sub-variance-preserving process."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.interfaces.process import Process


@dataclass(frozen=True)
class SubVP(Process):
    """z_t = √ᾱ x₀ + (1 − ᾱ) ε,   log ᾱ(t) = −½ t² (β_max − β_min) − t β_min.

    The mean is that of the linear variance-preserving process, the variance (1 − ᾱ)² lies below its 1 − ᾱ:
    F = −β/2, G² = β (1 − ᾱ²) with β(t) = β_min + t (β_max − β_min).

    Args:
        beta_min, beta_max: β at t = 0 and t = 1.

    Raises:
        UsageError: unless 0 < beta_min ≤ beta_max.

    References:
        Song et al., Score-Based Generative Modeling through SDEs, arXiv:2011.13456.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.beta_min <= self.beta_max < math.inf:
            raise UsageError(
                f"sub-vp: beta_min={self.beta_min!r}, beta_max={self.beta_max!r}; "
                "expected 0 < beta_min <= beta_max"
            )

    def log_alpha_bar(self, t: Tensor) -> Tensor:
        """Returns log ᾱ(t), float64, shape of t."""
        t = t.double()
        return -t.square() / 2 * (self.beta_max - self.beta_min) - t * self.beta_min

    def beta(self, t: Tensor) -> Tensor:
        """Returns β(t) = −d log ᾱ/dt, float64, shape of t."""
        return self.beta_min + t.double() * (self.beta_max - self.beta_min)

    def moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        log_alpha_bar = self.log_alpha_bar(t)
        return (log_alpha_bar / 2).exp()[..., None], log_alpha_bar.expm1().square()[..., None, None]

    def transition(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns, with r = ᾱ_t/ᾱ_s, Ψ = √r and Q = (1 − ᾱ_t)² − r (1 − ᾱ_s)² = (1 − r)(1 − ᾱ_t ᾱ_s)."""
        log_s, log_t = self.log_alpha_bar(s), self.log_alpha_bar(t)
        ratio = log_t - log_s
        Q = ratio.expm1() * (log_t + log_s).expm1()
        return (ratio / 2).exp()[..., None, None], Q[..., None, None]

    def drift(self, t: Tensor) -> Tensor:
        return -self.beta(t)[..., None, None] / 2

    def diffusion(self, t: Tensor) -> Tensor:
        return (-self.beta(t) * (2 * self.log_alpha_bar(t)).expm1()).sqrt()[..., None, None]

    def log_snr(self, t: Tensor) -> Tensor:
        log_alpha_bar = self.log_alpha_bar(t)
        return log_alpha_bar - 2 * (-log_alpha_bar.expm1()).log()

    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """Solves log ᾱ(t) = 2 log α for t, where with r = σ/α: α² + r α − 1 = 0, so α = 2/(r + √(r² + 4))."""
        r = (-log_snr.double() / 2).exp()
        alpha = 2 / (r + (r.square() + 4).sqrt())
        # log ᾱ = log(1 − r α) keeps its digits near the data, 2 log α near the noise.
        level = -torch.where(r < 1, torch.log1p(-(r * alpha).clamp(max=0.9)), 2 * alpha.log())
        root = (self.beta_min**2 + 2 * level * (self.beta_max - self.beta_min)).sqrt()
        return (2 * level / (self.beta_min + root)).nan_to_num(nan=1.0).clamp(0, 1)
