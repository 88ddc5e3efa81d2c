"""Guidance away from a model whose self-attention sees nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.guidance import Guidance


@dataclass(frozen=True)
class PerturbedAttention(Guidance):
    """D = D_model + s (D_model − D_perturbed): the perturbed branch has identity self-attention maps (softmax → I).

    Linear and folded into the step; it needs neither a class nor further training. A step pays two evaluations. Here
    s is the paper's: s = 0 is no guidance and evaluates one branch, and cfg's scale is 1 + s.

    Args:
        scale: s.

    Raises:
        UsageError: for a scale that is not finite, or a network without self-attention.

    References:
        Ahn et al., Self-Rectifying Diffusion Sampling with Perturbed-Attention Guidance, arXiv:2403.17377.
    """

    scale: float = 1.0

    neutral_scale = 0.0

    def branches(self, cond: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [dict(cond)] if self.scale == 0 else [dict(cond), dict(cond)]

    def weights(self, t: float) -> tuple[float, ...]:
        return (1.0,) if self.scale == 0 else (1.0 + self.scale, -self.scale)

    def networks(self, denoiser: Denoiser) -> dict[int, Denoiser]:
        return {} if self.scale == 0 else {1: denoiser.with_identity_attention()}
