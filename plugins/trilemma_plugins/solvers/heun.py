"""Heun's method along the noise level, with EDM's churn."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.process import Process
from trilemma.sampler import Sampler
from trilemma.spacing import Grid
from trilemma.tableau import Row, Tableau
from trilemma_plugins.solvers.exponential import time_of


@dataclass(frozen=True)
class Heun(Sampler):
    """The trapezoidal rule for dz̄ = ε̂ dρ with z̄ = z/α and ρ = σ/α, from ρ̂ ≥ ρ_t to ρ_s:

        z̄̂ = z̄ + s_noise √(ρ̂² − ρ_t²) ξ,          ρ̂ = (1 + γ) ρ_t
        z̄_s = z̄̂ + (ρ_s − ρ̂) (ε̂(z̄̂, ρ̂) + ε̂(z̄', ρ_s))/2,   z̄' = z̄̂ + (ρ_s − ρ̂) ε̂(z̄̂, ρ̂)

    with γ = min(s_churn/S, √2 − 1) where s_tmin ≤ ρ_t ≤ s_tmax, but never beyond the process's own largest ρ. The first
    step, which nothing comes before, is not churned. A step onto σ = 0 is one evaluation of first order; from α = 0 the
    rule is the trapezoidal one of x̂₀ in α/σ, as ρ is infinite there.

    Use: few, accurate steps on EDM-like models, with `grid=karras`; a little churn where the model's errors show.

    Args:
        s_churn: total amount of churn over the S steps; 0 follows the probability flow.
        s_tmin, s_tmax: noise levels ρ between which there is churn.
        s_noise: factor of the fresh noise.
        grid: of times, see `trilemma.spacing`.
        clip: bound of a static clip of x̂₀; None for none.

    Raises:
        UsageError: for an option out of range.

    References:
        Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, arXiv:2206.00364.
    """

    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = math.inf
    s_noise: float = 1.0
    grid: Grid = "karras"
    clip: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("s_churn", "s_tmin", "s_noise"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise UsageError(f"heun: {name}={value!r} is out of range; give a number of at least 0")
        if not self.s_tmax >= self.s_tmin:
            raise UsageError(
                f"heun: s_tmax={self.s_tmax!r} lies below s_tmin={self.s_tmin!r}; give a larger one"
            )

    @property
    def order(self) -> int:
        return 1 if self.s_churn else 2

    @property
    def deterministic(self) -> bool:
        return self.s_churn == 0

    def nfe(self, steps: int) -> int:
        return 2 * steps - 1

    def plan(self, process: Process, times: Tensor) -> Tableau:
        alphas, sigmas = (level.tolist() for level in process.levels(times))
        t, alpha, sigma = float(times[0]), alphas[0], sigmas[0]
        rows: list[Row] = []
        for i, s in enumerate(times[1:].tolist(), 1):
            alpha_s, sigma_s = alphas[i], sigmas[i]
            ratio = sigma_s / sigma
            weight = alpha_s - alpha * ratio
            rows.append(Row(t, ratio, ((0, weight),)))
            if sigma_s == 0:
                break
            A, now, before = _trapezoid(alpha, sigma, alpha_s, sigma_s)
            t, alpha, sigma = self._churned(process, len(times) - 1, s, alpha_s, sigma_s, i == len(times) - 1)
            scale = alpha / alpha_s
            fresh = (
                math.sqrt(max((sigma / alpha) ** 2 - (sigma_s / alpha_s) ** 2, 0.0)) * self.s_noise * alpha
            )
            rows.append(Row(s, scale * A, ((0, scale * now), (1, scale * before)), fresh, base=1))
        return Tableau(tuple(rows), "x0", self.clip)

    def _churned(
        self, process: Process, steps: int, s: float, alpha: float, sigma: float, last: bool
    ) -> tuple[float, float, float]:
        """Time, α and σ of ρ̂ above those of the state."""
        rho = sigma / alpha
        if self.s_churn == 0 or last or not self.s_tmin <= rho <= self.s_tmax:
            return s, alpha, sigma
        time = time_of(process, -math.log(rho * (1 + min(self.s_churn / steps, math.sqrt(2) - 1))))
        alpha_hat, sigma_hat = process.levels(torch.tensor(time, dtype=torch.float64))
        return time, float(alpha_hat), float(sigma_hat)


def _trapezoid(alpha: float, sigma: float, alpha_s: float, sigma_s: float) -> tuple[float, float, float]:
    """Coefficients of z_t, x̂₀(z'_s) and x̂₀(z_t) in the corrected state at s."""
    if alpha == 0:
        return sigma_s / sigma, alpha_s / 2, alpha_s / 2
    half = (sigma_s / alpha_s - sigma / alpha) / 2
    ratio = sigma_s / sigma
    weight = alpha_s - alpha * ratio
    A = alpha_s * (1 / alpha + half * (1 / sigma + ratio / sigma_s))
    return A, -alpha_s * half * alpha_s / sigma_s, alpha_s * half * (weight / sigma_s - alpha / sigma)
