"""Heun's method along the noise level, with EDM's churn."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from trilemma.process import Process
from trilemma.spacing import Grid
from trilemma.tableau import Row, Tableau
from trilemma_plugins.solvers.churn import Churned


@dataclass(frozen=True)
class Heun(Churned):
    """The trapezoidal rule for dz̄ = ε̂ dρ with z̄ = z/α and ρ = σ/α, from ρ_t (with churn ρ̂ above it) to ρ_s:

        z̄_s = z̄ + (ρ_s − ρ_t) (ε̂(z̄, ρ_t) + ε̂(z̄', ρ_s))/2,   z̄' = z̄ + (ρ_s − ρ_t) ε̂(z̄, ρ_t)

    A step onto σ = 0 is one evaluation of first order; from α = 0 the rule is the trapezoidal one of x̂₀ in α/σ, as ρ
    is infinite there. Churn: before a step z̄ ← z̄ + s_noise √(ρ̂² − ρ_t²) ξ with ρ̂ = (1 + γ) ρ_t and
    γ = min(s_churn/S, √2 − 1), but ρ̂ never beyond the process's own largest; not before the first step.

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

    grid: Grid = "karras"
    clip: float | None = None

    @property
    def order(self) -> int:
        return 1 if self.s_churn else 2

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
            t, alpha, sigma, fresh = s, alpha_s, sigma_s, 0.0
            if i < len(times) - 1:
                t, alpha, sigma, fresh = self.lifted(process, len(times) - 1, s, alpha_s, sigma_s)
            scale = alpha / alpha_s
            rows.append(Row(s, scale * A, ((0, scale * now), (1, scale * before)), fresh, base=1))
        return Tableau(tuple(rows), "x0", self.clip)


def _trapezoid(alpha: float, sigma: float, alpha_s: float, sigma_s: float) -> tuple[float, float, float]:
    """Coefficients of z_t, x̂₀(z'_s) and x̂₀(z_t) in the corrected state at s."""
    if alpha == 0:
        return sigma_s / sigma, alpha_s / 2, alpha_s / 2
    half = (sigma_s / alpha_s - sigma / alpha) / 2
    ratio = sigma_s / sigma
    weight = alpha_s - alpha * ratio
    A = alpha_s * (1 / alpha + half * (1 / sigma + ratio / sigma_s))
    return A, -alpha_s * half * alpha_s / sigma_s, alpha_s * half * (weight / sigma_s - alpha / sigma)
