"""Classifier-free guidance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.guidance import (
    BoundGuidance,
    FromNull,
    Weighted,
    unguided,
)


@dataclass(frozen=True)
class CFG(FromNull):
    """ε̃ = ε_∅ + s (ε_c − ε_∅), both branches in one batch, folded into the step.

    s = 1 is no guidance and evaluates the conditional branch only; the paper's w is s − 1. The combination is
    linear, so it means the same in every parameterization; it is applied before x̂₀ and its clip.

    Of several conditions ∅ is the null of all that are given, or of those that `drop` names. The sum of two such
    guidances, cfg:scale=3,drop=text+cfg:scale=2,drop=class, guides to each condition by a scale of its own.

    Args:
        scale: s.
        drop: names of the conditions that ∅ drops, one or several.

    Raises:
        UsageError: for a scale that is not finite.

    References:
        Ho & Salimans, Classifier-Free Diffusion Guidance, arXiv:2207.12598.
    """

    scale: float = 2.0

    def bind(self, model: Denoiser, cond: Mapping[str, Any], times: Tensor) -> BoundGuidance:
        if self.scale == 1:
            return unguided(model, cond)
        return Weighted(self.branches(model, cond), (self.scale, 1.0 - self.scale))
