"""Adaptive projected guidance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.guidance import (
    BoundGuidance,
    Branch,
    FromNull,
    unguided,
)
from trilemma.numerics.conversion import convert


@dataclass(frozen=True)
class APG(FromNull):
    """Classifier-free guidance in which the part parallel to the prediction, which saturates images, is weakened.

    With x̂_c and x̂_∅ the predictions of x₀ of a sample and Δ = x̂_c − x̂_∅, shortened to norm r,

        x̃ = x̂_c + (s − 1)(Δ_⊥ + η Δ_∥),   Δ_∥ = ⟨Δ, x̂_c⟩/‖x̂_c‖² x̂_c.

    η = 1 and r = 0 is classifier-free guidance. The paper's momentum over steps is left out: a step here depends on
    its own predictions alone.

    Args:
        scale: s; 1 is no guidance and evaluates one branch.
        eta: η.
        norm_threshold: r; 0 for no bound.
        drop: names of the conditions that ∅ drops, one or several; by default all that are given.

    Raises:
        UsageError: for an option that is not finite, or a negative threshold.

    References:
        Sadat et al., Eliminating Oversaturation and Artifacts of High Guidance Scales, arXiv:2410.02416.
    """

    scale: float = 4.0
    eta: float = 0.0
    norm_threshold: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.norm_threshold < 0:
            raise UsageError(f"apg: norm_threshold={self.norm_threshold!r} is negative; give 0 for no bound")

    def bind(self, model: Denoiser, cond: Mapping[str, Any], times: Tensor) -> BoundGuidance:
        if self.scale == 1:
            return unguided(model, cond)
        branches = self.branches(model, cond)
        if model.process.components != 1:
            raise UsageError("apg guides processes of one component; this one has more")
        return Projected(self, branches)


class Projected(BoundGuidance):
    """Adaptive projected guidance of a model.

    Args:
        options: scale, η and r.
        branches: under the conditions, and under none.
    """

    linear = False

    def __init__(self, options: APG, branches: tuple[Branch, Branch]) -> None:
        self.options, self.branches = options, branches

    def combine(
        self, z: Tensor, t: float, predictions: Sequence[Tensor], targets: Mapping[str, Tensor]
    ) -> Tensor:
        time = torch.tensor(t, dtype=torch.float64)
        levels = self.model.process.alpha(time), self.model.process.sigma(time)
        p, q = (entry.item() for entry in convert(self.model.parameterization, "x0", *levels))
        conditional = p * z + q * predictions[0]
        correction = self.correction(conditional, q * (predictions[0] - predictions[1]))
        return predictions[0] + (self.options.scale - 1) / q * correction

    def correction(self, conditional: Tensor, difference: Tensor) -> Tensor:
        """Returns Δ_⊥ + η Δ_∥ [B, ...] of x̂_c and Δ [B, ...]."""
        r = self.options.norm_threshold
        if r > 0:
            length = _dot(difference, difference).sqrt()
            difference = difference * (r / length.clamp_min(r))
        square = _dot(conditional, conditional)
        along = (_dot(difference, conditional) / square).where(square > 0, 0.0) * conditional
        return difference - (1 - self.options.eta) * along


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """⟨a, b⟩ of each sample, [B, 1, ...]."""
    return (a * b).sum(dim=tuple(range(1, a.dim())), keepdim=True)
