"""Draws from a generator on the host, the same whatever device and dtype they are for."""

from __future__ import annotations

import torch
from torch import Tensor


def standard_normals(like: Tensor, generator: torch.Generator) -> Tensor:
    """Returns ξ ~ N(0, I) in the shape and dtype and on the device of a tensor, drawn in float32 on the CPU.

    Args:
        like: the tensor.
        generator: on the CPU.
    """
    return torch.randn(like.shape, generator=generator, dtype=torch.float32).to(like)
