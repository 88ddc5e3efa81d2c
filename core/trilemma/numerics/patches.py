"""Images as patches."""

from __future__ import annotations

from torch import Tensor


def unshuffled(x: Tensor, patch: int) -> Tensor:
    """Returns images [B, C, H, W] as patches [B, C·p², H/p, W/p]."""
    batch, channels, height, width = x.shape
    # `F.pixel_unshuffle` leaves an empty batch as it is.
    parts = x.reshape(batch, channels, height // patch, patch, width // patch, patch).permute(
        0, 1, 3, 5, 2, 4
    )
    return parts.reshape(batch, channels * patch * patch, height // patch, width // patch)
