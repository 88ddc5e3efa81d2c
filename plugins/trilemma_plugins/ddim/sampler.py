"""Denoising diffusion implicit models."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.interfaces.process import Process
from trilemma.interfaces.sampler import Sampler
from trilemma.interfaces.spacing import Grid
from trilemma.interfaces.tableau import Row, Tableau


@dataclass(frozen=True)
class DDIM(Sampler):
    """From t to s < t, with ᾱ = α² and ε̂ = (z_t − α_t x̂₀)/σ_t:

        z_s = α_s x̂₀ + c₂ ε̂ + c₁ ξ,   c₁² = η² (σ_s²/σ_t²)(1 − ᾱ_t/ᾱ_s),   c₂² = σ_s² − c₁².

    η = 0 is the Euler step of the probability-flow ODE in (z/α, σ/α), η = 1 is DDPM with the posterior's
    variance. The last step lands on ᾱ = 1 and so returns x̂₀. ε̂ is formed from the clipped x̂₀, so the two
    stay consistent.

    Use: the baseline of fast sampling; inversion and editing, as its steps run backwards. Of first order, so that
    `dpmpp-2m` or `unipc` reach the same samples in a third of the steps.

    Args:
        eta: η ∈ [0, 1].

    Raises:
        UsageError: for an option out of range.

    References:
        Song et al., Denoising Diffusion Implicit Models, arXiv:2010.02502.
    """

    eta: float = 0.0
    grid: Grid = "trailing"
    clip: float | None = None

    order = 1
    exact = ("point",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta <= 1:
            raise UsageError(f"ddim: eta={self.eta!r} is out of range; give a number from 0 to 1")

    @property
    def deterministic(self) -> bool:
        return self.eta == 0

    def plan(self, process: Process, times: Tensor) -> Tableau:
        t, s = times[:-1], times[1:]
        alpha_t, sigma_t = process.alpha(t), process.sigma(t)
        alpha_s, sigma_s = process.alpha_sigma(s)
        # 1 − ᾱ_t/ᾱ_s.
        fresh = process.transition(s, t)[1][..., 0, 0]
        c1 = self.eta * (sigma_s / sigma_t) * fresh.sqrt()
        A = (sigma_s.square() - c1.square()).clamp_min(0).sqrt() / sigma_t
        rows = torch.stack([t, A, alpha_s - A * alpha_t, c1], -1).tolist()
        return Tableau(tuple(Row(t, A, ((0, B),), C) for t, A, B, C in rows), "x0", self.clip)
