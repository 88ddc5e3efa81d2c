"""Noise on the images that a network is told, keyed by seed and sample."""

from __future__ import annotations

import torch
from torch import Tensor

from trilemma.engine.noise import keyed_normal
from trilemma.numerics.noise_levels import noised
from trilemma.numerics.normal import PRIOR

# Number of this noise in the stream of the prior, beside that of the prior and that of images to start from.
_NUMBER = 2


def with_noise(images: Tensor, noise: float, seed: int, indices: Tensor) -> Tensor:
    """Returns √(1 − s²) x + s ξ of images x [B, C, H, W] of samples `indices` [B]; for s = 0 the images themselves."""
    if not noise:
        return images
    normals = keyed_normal(seed, indices, _NUMBER, images.shape[1:], PRIOR, images.dtype, images.device)
    return noised(images, torch.tensor([noise], dtype=torch.float64), normals)
