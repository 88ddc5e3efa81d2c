"""Levels of noise on images that a network is told: the deviation s of z = √(1 − s²) x + s ξ.

Networks are told λ = log((1 − s²)/s²), which is the same for every process: any state α x + σ ξ with this λ is z times
√(α² + σ²).
"""

from __future__ import annotations

import torch
from torch import Tensor


def log_snr_of(level: Tensor) -> Tensor:
    """Returns λ = log((1 − s²)/s²) of levels s in [0, 1), float64; infinite at 0."""
    squared = level.double().square()
    return torch.log1p(-squared) - squared.log()


def level_of(log_snr: Tensor) -> Tensor:
    """Returns s = √sigmoid(−λ), float64."""
    return torch.sigmoid(-log_snr.double()).sqrt()


def noised(images: Tensor, level: Tensor, noise: Tensor) -> Tensor:
    """Returns √(1 − s²) x + s ξ in the images' dtype.

    Args:
        images: x [B, C, H, W].
        level: s [B], or one for all.
        noise: ξ [B, C, H, W].
    """
    s = level.double().view(-1, 1, 1, 1)
    return (1 - s.square()).sqrt().to(images) * images + s.to(images) * noise
