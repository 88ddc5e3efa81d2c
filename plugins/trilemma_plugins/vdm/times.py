"""Low-discrepancy times: one uniform draw a batch, the examples evenly spaced behind it."""

from __future__ import annotations

import torch
from torch import Tensor


def spread_times(batch: int, generator: torch.Generator, even: bool = True) -> Tensor:
    """u_i = (u₀ + i/B) mod 1 [B], float64 in [0, 1), each of them uniform; B independent draws unless `even`.

    References:
        Kingma et al., Variational Diffusion Models, arXiv:2107.00630.
    """
    if not even:
        return torch.rand(batch, generator=generator, dtype=torch.float64)
    start = torch.rand((), generator=generator, dtype=torch.float64)
    return (start + torch.arange(batch, dtype=torch.float64) / batch) % 1
