"""The three terms of the variational bound of −log p(x), in nats for each example.

    −log p(x) ≤ KL(q(z₁|x) ‖ p(z₁)) + E[−log p(x|z₀)] + L_T(x)

γ = −log SNR. Functions take the levels as tensors, so that gradients reach a learned schedule, and leave the drawing
of times and noise to their caller (2107.00630).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trilemma_plugins.vdm.grey_levels import LEVELS, level_indices, level_values


def prior_kl(x: Tensor, alpha: Tensor, sigma: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """Returns KL(N(α₁x, σ₁²) ‖ N(0, P²)) = ½ Σ [α₁²x²/P² + σ₁²/P² − log σ₁²/P² − 1] for x [B, ...] → [B].

    Args:
        alpha, sigma: α₁ and σ₁, single.
        scale: P, the standard deviation of the prior.
    """
    square, variance = (alpha * x / scale).square(), (sigma / scale).square()
    return (square + variance - variance.log() - 1).flatten(1).sum(1) / 2


def reconstruction(x: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor, levels: int = LEVELS) -> Tensor:
    """Returns −log p(x | z₀) [B] of pixels x [B, ...] on grey levels, from z₀ = α₀x + σ₀ε.

    It is the softmax of `level_log_probabilities` over the levels within 12 σ₀/α₀ of x; others have no weight.

    Args:
        alpha, sigma: α₀ and σ₀, single.
    """
    gap = 2 / (levels - 1)
    reach = min(levels - 1, math.ceil(12 * float((sigma / alpha).detach()) / gap))
    offsets = torch.arange(-reach, reach + 1, device=x.device)
    index = level_indices(x, levels)
    neighbours = index.unsqueeze(-1) + offsets
    distance = (z / alpha - level_values(x, levels)[index]).unsqueeze(-1) - gap * offsets.to(x)
    logits = -(distance * (alpha / sigma)).square() / 2
    logits = logits.masked_fill((neighbours < 0) | (neighbours >= levels), -torch.inf)
    return (logits.logsumexp(-1) - logits[..., reach]).flatten(1).sum(1)


def discrete_weight(gamma_s: Tensor, gamma_t: Tensor, steps: int) -> Tensor:
    """Returns ½ T expm1(γ_t − γ_s), the weight of ‖ε − ε̂(z_t)‖² in the bound of T steps, for a drawn step (s, t)."""
    return steps * (gamma_t - gamma_s).expm1() / 2


def continuous_weight(slope: Tensor) -> Tensor:
    """Returns ½ γ'(t), the weight of ‖ε − ε̂(z_t)‖² in the bound of continuous time, for t uniform in [0, 1]."""
    return slope / 2


def bits_per_dimension(nats: Tensor, x: Tensor) -> Tensor:
    """Returns bits per dimension: nats [B] of examples x [B, ...] over D ln 2."""
    return nats / (x[0].numel() * math.log(2))
