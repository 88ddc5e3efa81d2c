"""Normals keyed by (seed, sample, step, stream, element): the reference, in float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trilemma.numerics.philox import philox

# What the noise of a (seed, sample, step) is for; streams never share a counter.
PRIOR = 0
STEP = 1
PERTURB = 2
LATENT = 3
PATH = 4
# The first of a network's own draws; the n-th has the stream DRAW + n.
DRAW = 5

_MASK = 0xFFFFFFFF


def reference_normal(seed: int, indices: Tensor, step: int, elements: int, stream: int) -> Tensor:
    """Returns standard normals ξ [B, elements], float64; element e of sample i is a function of its key alone.

        key     = (seed mod 2^32, seed div 2^32)
        counter = (e div 4, step, i mod 2^32, (i div 2^32)·2^8 + stream)

    The words x_0..x_3 at a counter make the normals of four elements, in two Box–Muller pairs (a, b) = (0, 1), (2, 3):

        u = (⌊x / 2^8⌋ + ½)·2^-24,   ξ_a = √(-2 ln u_a) cos 2πu_b,   ξ_b = √(-2 ln u_a) sin 2πu_b

    Args:
        seed: 64 bits.
        indices: int64 [B], from 0 to 2^56 - 1; the result is on their device.
        step: 32 bits.
        elements: of one sample, at most 2^34.
        stream: 8 bits; PRIOR, STEP, PERTURB, LATENT, PATH, or DRAW and above.
    """
    sample = indices[:, None]
    blocks = torch.arange((elements + 3) // 4, dtype=torch.int64, device=indices.device)
    x0, x1, x2, x3 = philox(
        (blocks, step & _MASK, sample & _MASK, ((sample >> 32) << 8 | stream) & _MASK),
        (seed & _MASK, (seed >> 32) & _MASK),
    )
    lanes = torch.stack([*_box_muller(x0, x1), *_box_muller(x2, x3)], dim=-1)
    return lanes.reshape(len(indices), blocks.numel() * 4)[:, :elements]


def _box_muller(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    u_a, u_b = (((word >> 8).to(torch.float64) + 0.5) * 2.0**-24 for word in (a, b))
    radius = torch.sqrt(-2 * torch.log(u_a))
    return radius * torch.cos(2 * math.pi * u_b), radius * torch.sin(2 * math.pi * u_b)
