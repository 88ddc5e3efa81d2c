"""Numbers of the examples of a batch, broadcast against it."""

from __future__ import annotations

from torch import Tensor


def column(values: Tensor, like: Tensor) -> Tensor:
    """Returns values [B] in the dtype and on the device of a batch `like` [B, ...], broadcastable against it."""
    return values.to(like.device, like.dtype).view(-1, *[1] * (like.dim() - 1))
