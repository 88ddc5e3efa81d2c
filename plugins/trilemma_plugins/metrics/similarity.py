"""Similarity of pairs of images: peak signal-to-noise ratio and structural similarity."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

# Of pixels in [−1, 1].
RANGE = 2.0
SIDE, DEVIATION = 11, 1.5
K1, K2 = 0.01, 0.03


def peak_signal_to_noise(x: Tensor, y: Tensor) -> Tensor:
    """Returns 10 log₁₀(4/MSE) [B] in decibels of images x and y [B, C, H, W] in [−1, 1]; ∞ for equal ones."""
    error = (x.double() - y.double()).square().flatten(1).mean(1)
    return 10 * (RANGE**2 / error).log10()


def structural_similarity(x: Tensor, y: Tensor) -> Tensor:
    """Returns SSIM [B] of images x and y [B, C, H, W] in [−1, 1], the mean over channels and pixels of

        (2 μ_x μ_y + c₁)(2 σ_xy + c₂) / ((μ_x² + μ_y² + c₁)(σ_x² + σ_y² + c₂)),   c = (0.01·2)², (0.03·2)²

    with moments under a Gaussian window of 11×11 pixels and deviation 1.5, smaller where an image is smaller.
    Borders are reflected, as torchmetrics has it.

    References:
        Wang et al., Image quality assessment: from error visibility to structural similarity, 2004.
    """
    first, second = (images.double().flatten(0, 1)[:, None] for images in (x, y))
    side = min(SIDE, *(length - 1 + length % 2 for length in x.shape[2:]))
    place = torch.arange(side, dtype=torch.float64, device=x.device) - (side - 1) / 2
    line = (-place.square() / (2 * DEVIATION**2)).exp()
    line = line / line.sum()
    window = (line[:, None] * line)[None, None]

    def mean(values: Tensor) -> Tensor:
        return conv2d(pad(values, (side // 2,) * 4, mode="reflect"), window)

    mean_x, mean_y = mean(first), mean(second)
    variance_x = mean(first.square()) - mean_x.square()
    variance_y = mean(second.square()) - mean_y.square()
    covariance = mean(first * second) - mean_x * mean_y
    c1, c2 = (K1 * RANGE) ** 2, (K2 * RANGE) ** 2
    found = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    found = found / ((mean_x.square() + mean_y.square() + c1) * (variance_x + variance_y + c2))
    return found.flatten(1).mean(1).unflatten(0, x.shape[:2]).mean(1)
