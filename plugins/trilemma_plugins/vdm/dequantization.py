"""Dequantization: points of the continuous space for grey levels, and its cost in nats.

Each function gives points y [B, ...] and nats [B] with −log P(x) ≤ E[nats − log p(y)].
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trilemma.interfaces.process import Process
from trilemma_plugins.vdm.bound import reconstruction
from trilemma_plugins.vdm.grey_levels import LEVELS
from trilemma_plugins.vdm.time_interval import time_interval


def uniform_noise(
    process: Process,
    x: Tensor,
    generator: torch.Generator,
    levels: int = LEVELS,
    first: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Draws y = x + u, u uniform and centred, of the width w = 2/(levels − 1) of a level; returns it and −D log w."""
    width = 2 / (levels - 1)
    u = torch.rand(x.shape, generator=generator, dtype=x.dtype, device="cpu").to(x.device)
    return x + (u - 0.5) * width, torch.full_like(x.flatten(1)[:, 0], -x[0].numel() * math.log(width))


def last_noise(
    process: Process,
    x: Tensor,
    generator: torch.Generator,
    levels: int = LEVELS,
    first: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Draws y = x + r ε, r = σ₀/α₀ at t₀, `first` or the process's end; returns it and log q(y | x) − log P(x | y)."""
    time = time_interval(process, first)[0]
    alpha, sigma = process.alpha(time).to(x), process.sigma(time).to(x)
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device="cpu").to(x.device)
    log_q = -(noise.square() / 2 + (sigma / alpha).log() + math.log(2 * math.pi) / 2).flatten(1).sum(1)
    z0 = alpha * x + sigma * noise
    return z0 / alpha, log_q + reconstruction(x, z0, alpha, sigma, levels)


DEQUANTIZATIONS = {"noise": last_noise, "uniform": uniform_noise}
