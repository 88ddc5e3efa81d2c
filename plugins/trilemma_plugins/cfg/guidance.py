"""Classifier-free guidance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.guidance import Guidance, needs_null_class


@dataclass(frozen=True)
class CFG(Guidance):
    """ε̃ = ε_∅ + s (ε_c − ε_∅), both branches in one batch, folded into the step.

    s = 1 is no guidance and evaluates the conditional branch only; the paper's w is s − 1. The combination is
    linear, so it means the same in every parameterization; it is applied before x̂₀ and its clip.

    Args:
        scale: s.

    Raises:
        UsageError: for a scale that is not finite.

    References:
        Ho & Salimans, Classifier-Free Diffusion Guidance, arXiv:2207.12598.
    """

    scale: float = 2.0

    def branches(self, cond: Mapping[str, Any]) -> list[dict[str, Any]]:
        conditional = dict(cond)
        return [conditional] if self.scale == 1 else [conditional, dict.fromkeys(cond)]

    def weights(self, t: float) -> tuple[float, ...]:
        return (1.0,) if self.scale == 1 else (self.scale, 1.0 - self.scale)

    def check(self, denoiser: Denoiser, cond: Mapping[str, Any]) -> None:
        if self.scale != 1:
            needs_null_class("cfg", denoiser, cond)
