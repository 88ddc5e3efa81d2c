"""Noise of degraded pictures: Gaussian of three kinds of covariance, Poisson and speckle."""

from __future__ import annotations

import torch
from torch import Tensor

from trilemma_plugins.bsr.draws import Draws


def coloured_normals(shape: tuple[int, ...], draws: Draws) -> Tensor:
    """Returns normals [C, H, W] of a covariance between the channels that is drawn first.

    In 40 of 100 cases the channels are independent, of variance 1; in 40 they are equal; in 20 their covariance is
    Q diag(d) Qᵀ with Q a random rotation and d ~ U(0, 1) (2103.14006).
    """
    channels, height, width = shape
    kind = draws.uniform(0, 1)
    if kind < 0.4 or channels == 1:
        return draws.normals(*shape)
    if kind < 0.8:
        return draws.normals(1, height, width).expand(shape)
    root = covariance_root(channels, draws)
    return torch.einsum("cd,dhw->chw", root, draws.normals(*shape))


def covariance_root(channels: int, draws: Draws) -> Tensor:
    """Returns R = Q diag(√d) [C, C], so that R Rᵀ is a random covariance."""
    rotation, _ = torch.linalg.qr(draws.normals(channels, channels))
    deviations = torch.tensor([draws.uniform(0, 1) for _ in range(channels)], dtype=torch.float64).sqrt()
    return rotation * deviations


def gaussian(image: Tensor, level: float, draws: Draws) -> Tensor:
    """Returns x + level·ξ, clipped to [0, 1], with ξ by `coloured_normals`."""
    return (image + level * coloured_normals(tuple(image.shape), draws)).clamp(0, 1)


def speckle(image: Tensor, level: float, draws: Draws) -> Tensor:
    """Returns x + level·x·ξ, clipped to [0, 1], with ξ by `coloured_normals`."""
    return (image + level * image * coloured_normals(tuple(image.shape), draws)).clamp(0, 1)


def poisson(image: Tensor, photons: float, grey: bool, draws: Draws) -> Tensor:
    """Returns Poisson(photons·x)/photons, clipped to [0, 1].

    Args:
        image: [C, H, W] in [0, 1].
        photons: that a white pixel counts on average.
        grey: count the mean of the channels, and add the same error to each.
        draws: of the counts.
    """
    if not grey:
        return (draws.counts(photons * image) / photons).clamp(0, 1)
    mean = image.mean(0, keepdim=True)
    return (image + draws.counts(photons * mean) / photons - mean).clamp(0, 1)
