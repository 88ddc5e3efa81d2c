"""Adaptive projected guidance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.guidance import Guidance, needs_null_class
from trilemma.numerics.conversion import convert


@dataclass(frozen=True)
class APG(Guidance):
    """Classifier-free guidance whose part along the prediction, which saturates, is weakened.

    With x̂_c and x̂_∅ the predictions of x₀ of a sample and Δ = x̂_c − x̂_∅, shortened to norm r,

        x̃ = x̂_c + (s − 1)(Δ_⊥ + η Δ_∥),   Δ_∥ = ⟨Δ, x̂_c⟩/‖x̂_c‖² x̂_c.

    η = 1 and r = 0 is classifier-free guidance. The paper's momentum over steps is left out: a step here depends on
    its own predictions alone.

    Args:
        scale: s; 1 is no guidance and evaluates one branch.
        eta: η.
        norm_threshold: r; 0 for no bound.

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

    @property
    def linear(self) -> bool:
        return self.scale == 1

    def branches(self, cond: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [dict(cond)] if self.scale == 1 else [dict(cond), dict.fromkeys(cond)]

    def weights(self, t: float) -> tuple[float, ...]:
        return (1.0,)

    def combine(self, z: Tensor, t: float, predictions: Sequence[Tensor], denoiser: Denoiser) -> Tensor:
        time = torch.tensor(t, dtype=torch.float64)
        levels = denoiser.process.alpha(time), denoiser.process.sigma(time)
        p, q = (entry.item() for entry in convert(denoiser.parameterization, "x0", *levels))
        conditional = p * z + q * predictions[0]
        correction = self.correction(conditional, q * (predictions[0] - predictions[1]))
        return predictions[0] + (self.scale - 1) / q * correction

    def correction(self, conditional: Tensor, difference: Tensor) -> Tensor:
        """Δ_⊥ + η Δ_∥ [B, ...] of x̂_c and Δ [B, ...]."""
        if self.norm_threshold > 0:
            length = _dot(difference, difference).sqrt()
            bound = length.clamp_min(self.norm_threshold)
            difference = difference * (self.norm_threshold / bound)
        square = _dot(conditional, conditional)
        along = (_dot(difference, conditional) / square).where(square > 0, 0.0) * conditional
        return difference - (1 - self.eta) * along

    def check(self, denoiser: Denoiser, cond: Mapping[str, Any]) -> None:
        if self.scale != 1:
            needs_null_class("apg", denoiser, cond)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """⟨a, b⟩ of each sample, [B, 1, ...]."""
    return (a * b).sum(dim=tuple(range(1, a.dim())), keepdim=True)
