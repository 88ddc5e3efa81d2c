"""Squares in the corners of a picture."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

CORNERS = 4
# A fraction of the shorter side.
_PART = 7 / 8


def corner(pixels: Tensor, which: int, size: int) -> Tensor:
    """Returns the square of 7/8 of the shorter side in a corner, resized to uint8 [C, size, size] (Lanczos).

    Args:
        pixels: uint8 [C, H, W].
        which: 0 top left, 1 top right, 2 bottom left, 3 bottom right.
        size: side of the result.
    """
    channels, height, width = pixels.shape
    side = _PART * min(height, width)
    left = (width - side) if which % 2 else 0.0
    top = (height - side) if which // 2 else 0.0
    picture = Image.fromarray(pixels[0].numpy() if channels == 1 else pixels.permute(1, 2, 0).numpy())
    box = (left, top, left + side, top + side)
    resized = np.array(picture.resize((size, size), Image.Resampling.LANCZOS, box=box))
    return torch.from_numpy(resized.reshape(size, size, channels).transpose(2, 0, 1).copy())
