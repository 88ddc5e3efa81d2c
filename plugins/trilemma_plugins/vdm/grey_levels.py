"""The grey levels of an image and what a nearly clean state says about them: p(x | z₀)."""

from __future__ import annotations

import torch
from torch import Tensor

LEVELS = 256


def level_values(like: Tensor, levels: int = LEVELS) -> Tensor:
    """Returns x_k = 2k/(levels − 1) − 1, k = 0 .. levels − 1: the engine's pixel values, in the dtype of `like`."""
    return torch.linspace(-1, 1, levels, dtype=torch.float64).to(like)


def level_indices(x: Tensor, levels: int = LEVELS) -> Tensor:
    """Returns k of the nearest level of pixels x in [−1, 1], int64."""
    return ((x + 1) * ((levels - 1) / 2)).round().long().clamp(0, levels - 1)


def level_log_probabilities(z: Tensor, alpha: Tensor, sigma: Tensor, levels: int = LEVELS) -> Tensor:
    """Returns log p(k | z) [..., levels] of states z [...]: softmax over k of −½ (z/α − x_k)² α²/σ².

    Args:
        alpha, sigma: of the state, broadcastable against it.
        levels: how many grey levels.

    References:
        Kingma et al., Variational Diffusion Models, arXiv:2107.00630.
    """
    distance = (z / alpha).unsqueeze(-1) - level_values(z, levels)
    return (-distance.square() * (alpha / sigma).square().unsqueeze(-1) / 2).log_softmax(-1)
