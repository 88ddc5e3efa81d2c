"""Classifier-free guidance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trilemma.denoiser import Denoiser
from trilemma.errors import UsageError
from trilemma.guidance import Guidance


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

    def __post_init__(self) -> None:
        if not isinstance(self.scale, int | float) or not math.isfinite(self.scale):
            raise UsageError(f"cfg: scale={self.scale!r} is not a finite number; give for example scale=2")

    def branches(self, cond: Mapping[str, Any]) -> list[dict[str, Any]]:
        conditional = dict(cond)
        return [conditional] if self.scale == 1 else [conditional, dict.fromkeys(cond)]

    def weights(self, t: float) -> tuple[float, ...]:
        return (1.0,) if self.scale == 1 else (self.scale, 1.0 - self.scale)

    def check(self, denoiser: Denoiser, cond: Mapping[str, Any]) -> None:
        if self.scale == 1:
            return
        conditions = denoiser.conditions
        if not conditions:
            raise UsageError(
                "cfg needs a conditional model and this one takes no condition; leave guidance out"
            )
        if all(value is None for value in cond.values()):
            raise UsageError(
                f"cfg needs a condition to guide to; give cond for one of: {', '.join(conditions)}"
            )
        for name in cond:
            if name in conditions and conditions[name].null is None:
                raise UsageError(
                    f"cfg needs a null class and condition {name!r} has none; leave guidance out"
                )
