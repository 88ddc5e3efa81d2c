"""Classifier-free guidance that stays on the manifold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.guidance import BoundGuidance, FromNull, Weighted
from trilemma.interfaces.process import Process


@dataclass(frozen=True)
class CFGpp(FromNull):
    """x̂₀ from the guided ε̂, the noise put back from the unconditional one.

    The paper's step from t to s is, with ε_λ = ε_∅ + λ(ε_c − ε_∅),

        z_s = α_s (z_t − σ_t ε_λ)/α_t + σ_s ε_∅.

    DDIM with η = 0 under classifier-free guidance of scale ω has the factor σ_s − α_s σ_t/α_t before ω(ε_c − ε_∅)
    where this has −λ α_s σ_t/α_t, and all else is the same. So the two agree exactly for

        ω_t = λ α_s σ_t/(α_s σ_t − α_t σ_s),

    which this guidance uses: it is linear, folded into the step, and the paper's method under ddim:eta=0 without clip.
    Under any other sampler it is classifier-free guidance at the scale ω_t of the grid, no more. The last step
    (σ_s = 0) has ω = λ.

    Args:
        scale: λ in [0, 1]; 1 is full guidance, not none.
        drop: names of the conditions that ∅ drops, one or several; by default all that are given.

    Raises:
        UsageError: for λ outside of [0, 1].

    References:
        Chung et al., CFG++: Manifold-constrained Classifier Free Guidance, arXiv:2406.08070.
    """

    scale: float = 0.6

    neutral_scale = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.scale <= 1:
            raise UsageError(f"cfgpp: scale={self.scale!r} is out of range; give a number from 0 to 1")

    def bind(self, model: Denoiser, cond: Mapping[str, Any], times: Tensor) -> BoundGuidance:
        branches = self.branches(model, cond)
        steps = self.scales(model.process, times)

        def weights(t: float) -> tuple[float, ...]:
            # An evaluation between two times belongs to the step from the later one.
            scale = next((scale for time, scale in reversed(steps) if time >= t), self.scale)
            return (scale, 1.0 - scale)

        return Weighted(branches, weights)

    def scales(self, process: Process, times: Tensor) -> list[tuple[float, float]]:
        """Returns (t, ω_t) of each step of a grid, falling in t."""
        times = torch.sort(times.double(), descending=True).values
        alpha, sigma = process.alpha_sigma(times)
        signal, noise = alpha[1:] * sigma[:-1], alpha[:-1] * sigma[1:]
        scales = self.scale * signal / (signal - noise)
        return list(zip(times[:-1].tolist(), scales.tolist(), strict=True))
