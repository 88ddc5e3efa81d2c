"""Building blocks of the U-Net: time embedding, residual block, resampling."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trilemma.interfaces.denoiser import time_dtype

TimeInjection = Literal["adagn", "add"]


class TimeEmbedding(nn.Module):
    """Sinusoidal features of time through a two-layer perceptron (1706.03762, 2006.11239).

    e(t) = W₂ SiLU(W₁ [cos(ω_k·1000 t), sin(ω_k·1000 t)]), ω_k geometric from 1 to 10⁻⁴.
    """

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.features = features
        self.mlp = perceptron(features, width)

    def forward(self, t: Tensor) -> Tensor:
        """Returns the embedding [B, width] of times t [B] in [0, 1]."""
        return self.mlp(sinusoids(t, self.features).to(self.mlp[0].weight.dtype))


def perceptron(features: int, width: int) -> nn.Sequential:
    """Returns W₂ SiLU(W₁ x)."""
    return nn.Sequential(nn.Linear(features, width), nn.SiLU(), nn.Linear(width, width))


def sinusoids(t: Tensor, count: int) -> Tensor:
    """Returns [cos(ω_k·1000 t), sin(ω_k·1000 t)], [B, count] of numbers t [B] in [0, 1]."""
    # No buffer: a network cast to bfloat16 would round the frequencies, and with them angles of up to 1000.
    index = torch.arange(count // 2, device=t.device, dtype=torch.float32)
    frequencies = 1000.0 * torch.exp(-math.log(1e4) * index / (count // 2))
    angles = t[:, None].to(time_dtype(t.dtype)) * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class ResidualBlock(nn.Module):
    """GroupNorm-SiLU-conv twice around an injection of the embedding e [B, E].

    "add": h + W e (2006.11239); "adagn": GN(h)(1 + scale) + shift with (scale, shift) = W e (2105.05233).
    The last convolution starts at zero, so that a new block is its shortcut.
    """

    def __init__(
        self, channels: int, out: int, embedding: int, groups: int, time: TimeInjection, dropout: float
    ) -> None:
        super().__init__()
        self.time = time
        self.norm1 = nn.GroupNorm(groups, channels)
        self.conv1 = nn.Conv2d(channels, out, 3, padding=1)
        self.inject = nn.Linear(embedding, 2 * out if time == "adagn" else out)
        self.norm2 = nn.GroupNorm(groups, out)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.shortcut = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Maps [B, C, H, W] and [B, E] to [B, out, H, W]."""
        h = self.conv1(F.silu(self.norm1(x)))
        injected = self.inject(F.silu(embedding))[:, :, None, None]
        if self.time == "adagn":
            scale, shift = injected.chunk(2, dim=1)
            h = torch.addcmul(shift, self.norm2(h), 1 + scale)
        else:
            h = self.norm2(h + injected)
        return self.shortcut(x) + self.conv2(self.dropout(F.silu(h)))


class Downsample(nn.Module):
    """Halves height and width by a strided convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, C, H, W] to [B, C, ⌈H/2⌉, ⌈W/2⌉]."""
        return self.conv(x)


class Upsample(nn.Module):
    """Resizes to the size of the skip by nearest neighbour, then convolves."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Maps [B, C, H, W] to [B, out, *size]."""
        return self.conv(F.interpolate(x, size=size, mode="nearest"))
