"""Guidance away from a model whose self-attention sees nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from trilemma.interfaces.denoiser import Denoiser
from trilemma.interfaces.guidance import BoundGuidance, Branch, Guidance, Weighted, unguided


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

    def bind(self, model: Denoiser, cond: Mapping[str, Any], times: Tensor) -> BoundGuidance:
        if self.scale == 0:
            return unguided(model, cond)
        perturbed = model.with_attention(_identity)
        branches = Branch(dict(cond), model), Branch(dict(cond), perturbed)
        return Weighted(branches, (1.0 + self.scale, -self.scale))


def _identity(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention whose map is the identity: every place attends to itself alone."""
    return value
