"""Heun's method along the noise level, with EDM's churn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from trilemma.interfaces.process import Process
from trilemma.interfaces.spacing import Grid
from trilemma.interfaces.tableau import Row, Tableau
from trilemma_plugins.solvers.churn import Churned

WIDE = 12.0
# t, α, σ.
Point: TypeAlias = tuple[float, float, float]


@dataclass(frozen=True)
class Heun(Churned):
    """The trapezoidal rule for dz̄ = ε̂ dρ with z̄ = z/α and ρ = σ/α, from ρ_t (with churn ρ̂ above it) to ρ_s:

        z̄_s = z̄ + (ρ_s − ρ_t) (ε̂(z̄, ρ_t) + ε̂(z̄', ρ_s))/2,   z̄' = z̄ + (ρ_s − ρ_t) ε̂(z̄, ρ_t)

    A step onto σ = 0 is one evaluation of first order. Where ρ falls to less than a twelfth, as it does from α = 0, the
    rule is the trapezoidal one of x̂₀ in α/σ, of the same order: there the one in ρ amplifies the state. Churn:
    before a step z̄ ← z̄ + s_noise √(ρ̂² − ρ_t²) ξ with ρ̂ = (1 + γ) ρ_t and
    γ = min(s_churn/S, √2 − 1), but ρ̂ never beyond the process's own largest; not before the first step.

    Use: few, accurate steps on EDM-like models, with `grid=karras`; `grid=lambda` on those with more noise at the
    prior, such as the linear VP schedule. A little churn where the model's errors show.

    Args:
        s_churn: total amount of churn over the S steps; 0 follows the probability flow.
        s_tmin, s_tmax: noise levels ρ between which there is churn.
        s_noise: factor of the fresh noise.

    Raises:
        UsageError: for an option out of range.

    References:
        Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, arXiv:2206.00364.
    """

    grid: Grid = "karras"
    clip: float | None = None

    @property
    def order(self) -> int:
        if self.s_churn == 0:
            return 2
        # The noise of another size remains in any number of steps.
        return 1 if self.s_noise == 1 else 0

    @property
    def exact(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("point",) if self.s_noise == 1 or self.deterministic else ()

    def nfe(self, steps: int) -> int:
        return 2 * steps - 1

    def plan(self, process: Process, times: Tensor) -> Tableau:
        levels = [level.tolist() for level in process.alpha_sigma(times)]
        points = list(zip(times.tolist(), *levels, strict=True))
        start, last = points[0], len(points) - 1
        rows: list[Row] = []
        for i, end in enumerate(points[1:], 1):
            onward, fresh = end, 0.0
            if i < last:
                *lifted, fresh = self.lifted(process, last, *end)
                onward = (lifted[0], lifted[1], lifted[2])
            rows += heun_rows(start, end, onward, fresh)
            start = onward
        return Tableau(tuple(rows), "x0", self.clip)


def heun_rows(start: Point, end: Point, onward: Point, fresh: float) -> list[Row]:
    """Returns a step from start to end: one row where σ = 0 there, else two, and `fresh` noise on to `onward`."""
    (t, alpha, sigma), (s, alpha_s, sigma_s) = start, end
    ratio = sigma_s / sigma
    weight = alpha_s - alpha * ratio
    predictor = Row(t, ratio, ((0, weight),))
    if sigma_s == 0:
        return [predictor]
    A, now, before = _trapezoid(alpha, sigma, alpha_s, sigma_s)
    scale = onward[1] / alpha_s
    return [predictor, Row(s, scale * A, ((0, scale * now), (1, scale * before)), fresh, base=1)]


def _trapezoid(alpha: float, sigma: float, alpha_s: float, sigma_s: float) -> tuple[float, float, float]:
    """Coefficients of z_t, x̂₀(z'_s) and x̂₀(z_t) in the corrected state at s."""
    if WIDE * alpha * sigma_s < sigma * alpha_s:
        half = (alpha_s - alpha * sigma_s / sigma) / 2
        return sigma_s / sigma, half, half
    half = (sigma_s / alpha_s - sigma / alpha) / 2
    ratio = sigma_s / sigma
    weight = alpha_s - alpha * ratio
    A = alpha_s * (1 / alpha + half * (1 / sigma + ratio / sigma_s))
    return A, -alpha_s * half * alpha_s / sigma_s, alpha_s * half * (weight / sigma_s - alpha / sigma)
