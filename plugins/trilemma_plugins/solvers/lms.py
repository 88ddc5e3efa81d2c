"""Linear multistep in the noise level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trilemma_plugins.solvers.deis import DEIS


@dataclass(frozen=True)
class LMS(DEIS):
    """`DEIS` with the polynomial in ρ = σ/α itself: Adams–Bashforth for dz̄ = ε̂ dρ on uneven steps,

        z̄_s = z̄_t + ∫ p dρ,   p through the last `points` predictions ε̂, z̄ = z/α.

    Use: the classic multistep method of EDM-like samplers; `deis` and `dpmpp-2m` are more accurate at few steps.

    Args:
        points: of the polynomial, 1 to 4.

    Raises:
        UsageError: for an option out of range.

    References:
        Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, arXiv:2206.00364.
    """

    points: int = 4
    variable: Literal["log-rho", "rho", "t"] = "rho"
