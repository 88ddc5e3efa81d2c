"""Euler's method along the noise level, with EDM's churn; and its ancestral form."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from trilemma.errors import UsageError
from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.interfaces.spacing import Grid
from trilemma.interfaces.tableau import Row, Tableau
from trilemma_plugins.solvers.churn import Churned


@dataclass(frozen=True)
class Euler(Churned):
    """Euler's method for dz̄ = ε̂ dρ with z̄ = z/α and ρ = σ/α, from ρ_t (with churn ρ̂ above it) to ρ_s:

        z̄_s = z̄ + (ρ_s − ρ_t) ε̂,   that is   z_s = (σ_s/σ_t) z + (α_s − α_t σ_s/σ_t) x̂₀

    Without churn these are the steps of DDIM at η = 0. Churn: before a step z̄ ← z̄ + s_noise √(ρ̂² − ρ_t²) ξ with
    ρ̂ = (1 + γ) ρ_t and γ = min(s_churn/S, √2 − 1), but ρ̂ never beyond the process's own largest; not before the
    first step.

    Use: the plain baseline that others are measured against; many cheap steps, or models distilled to a few.

    Args:
        s_churn: total amount of churn over the S steps; 0 follows the probability flow.
        s_tmin, s_tmax: noise levels ρ between which there is churn.
        s_noise: factor of the fresh noise.

    Raises:
        UsageError: for an option out of range.

    References:
        Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, arXiv:2206.00364.
    """

    grid: Grid = "trailing"
    clip: float | None = None

    @property
    def order(self) -> int:
        return 1 if self.s_noise == 1 or self.deterministic else 0

    @property
    def exact(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("point",) if self.s_noise == 1 or self.deterministic else ()

    def plan(self, process: Process, times: Tensor) -> Tableau:
        alphas, sigmas = (level.tolist() for level in process.alpha_sigma(times))
        t, alpha, sigma = float(times[0]), alphas[0], sigmas[0]
        rows = []
        for i, s in enumerate(times[1:].tolist(), 1):
            seen, ratio = t, sigmas[i] / sigma
            weight = alphas[i] - alpha * ratio
            t, alpha, sigma, fresh = s, alphas[i], sigmas[i], 0.0
            if i < len(times) - 1:
                t, alpha, sigma, fresh = self.lifted(process, len(times) - 1, s, alpha, sigma)
            scale = alpha / alphas[i]
            rows.append(Row(seen, scale * ratio, ((0, scale * weight),), fresh))
        return Tableau(tuple(rows), "x0", self.clip)


@dataclass(frozen=True)
class EulerAncestral(Sampler):
    """Euler's step from ρ_t down to ρ_↓, then fresh noise up to ρ_s, with ρ = σ/α and z̄ = z/α:

        z̄_s = z̄ + (ρ_↓ − ρ_t) ε̂ + ρ_↑ ξ,   ρ_↑ = min(ρ_s, η (ρ_s/ρ_t) √(ρ_t² − ρ_s²)),   ρ_↓² = ρ_s² − ρ_↑²

    For η ≤ 1 these are the steps of DDIM at η, and for η = 1 those of DDPM with the posterior's variance.

    Use: varied samples from many steps; at few steps the fresh noise is not yet averaged out and a deterministic
    method is ahead.

    Args:
        eta: η ≥ 0, amount of fresh noise.

    Raises:
        UsageError: for an option out of range.

    References:
        Ho et al., Denoising Diffusion Probabilistic Models, arXiv:2006.11239; Song et al., Denoising Diffusion
        Implicit Models, arXiv:2010.02502.
    """

    eta: float = 1.0
    grid: Grid = "trailing"
    clip: float | None = None

    order = 1
    exact = ("point",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta < math.inf:
            raise UsageError(
                f"euler-ancestral: eta={self.eta!r} is out of range; give a number of at least 0"
            )

    @property
    def deterministic(self) -> bool:
        return self.eta == 0

    def plan(self, process: Process, times: Tensor) -> Tableau:
        alpha, sigma = process.alpha_sigma(times)
        t, s = slice(None, -1), slice(1, None)
        # σ_t² (1 − ρ_s²/ρ_t²), without cancellation.
        fresh = process.transition(times[s], times[t])[1][..., 0, 0]
        up = (self.eta * (sigma[s] / sigma[t]) * fresh.sqrt()).minimum(sigma[s])
        down = (sigma[s].square() - up.square()).sqrt()
        A = down / sigma[t]
        B = alpha[s] - alpha[t] * A
        rows = zip(times[t].tolist(), A.tolist(), B.tolist(), up.tolist(), strict=True)
        return Tableau(tuple(Row(t, A, ((0, B),), C) for t, A, B, C in rows), "x0", self.clip)
