"""Low-discrepancy uniform draws: one random offset a batch, the entries evenly spaced behind it."""

from __future__ import annotations

import torch
from torch import Tensor


def uniform_draws(batch: int, generator: torch.Generator, stratified: bool = True) -> Tensor:
    """Draws u [B], float64 in [0, 1), each of them uniform.

        u_i = (u₀ + i/B) mod 1

    Args:
        batch: B.
        generator: on the CPU.
        stratified: False draws B independent uniforms instead.

    References:
        Kingma et al., Variational Diffusion Models, arXiv:2107.00630.
    """
    if not stratified:
        return torch.rand(batch, generator=generator, dtype=torch.float64)
    offset = torch.rand((), generator=generator, dtype=torch.float64)
    return (offset + torch.arange(batch, dtype=torch.float64) / batch) % 1
