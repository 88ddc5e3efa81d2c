"""Ancestral sampling of denoising diffusion probabilistic models."""

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
class DDPM(Sampler):
    """The posterior q(z_s | z_t, x₀) at x₀ = x̂₀, for q(z_t | z_s) = N(Ψ z_s, Q):

        z_s = Ψ (σ_s²/σ_t²) z_t + α_s (Q/σ_t²) x̂₀ + √V ξ,   V = Q σ_s²/σ_t² (small, β̃) or Q (large, β).

    With as many steps as the process has this is DDPM's chain; with fewer it is the plain strided chain. The
    last step adds no noise and returns x̂₀.

    Use: the reference that fast samplers are measured against, in as many steps as the process has.

    Args:
        variance: "small" or "large".

    Raises:
        UsageError: for an unknown variance or grid, or a bound that is not positive.

    References:
        Ho et al., Denoising Diffusion Probabilistic Models, arXiv:2006.11239.
    """

    variance: str = "small"
    grid: Grid = "trailing"
    clip: float | None = None

    order = 1
    deterministic = False

    # The large variance is that of Gaussian data.
    @property
    def exact(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("point",) if self.variance == "small" else ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variance not in ("small", "large"):
            raise UsageError(f"ddpm: unknown variance {self.variance!r}; expected small or large")

    def plan(self, process: Process, times: Tensor) -> Tableau:
        t, s = times[:-1], times[1:]
        alpha_s, sigma_s = process.alpha_sigma(s)
        variance_s, variance_t = sigma_s.square(), process.sigma(t).square()
        psi, Q = (entry[..., 0, 0] for entry in process.transition(s, t))
        A = psi * variance_s / variance_t
        B = alpha_s * Q / variance_t
        B[s == 0] = 1
        V = Q * variance_s / variance_t if self.variance == "small" else Q.clone()
        V[s == 0] = 0
        rows = torch.stack([t, A, B, V.sqrt()], -1).tolist()
        return Tableau(tuple(Row(t, A, ((0, B),), C) for t, A, B, C in rows), "x0", self.clip)
