"""From the bytes of an image file to the bytes of its pixels."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

_WIDE_MODES = ("I", "F")  # 16 and 32 bits a channel, which Pillow would cut off instead of scale


def decode(blob: bytes, mode: str, size: int | None) -> Tensor:
    """The pixels uint8 [C, H, W] of an encoded image, turned upright.

    Args:
        blob: the file.
        mode: "L" (C = 1) or "RGB" (C = 3).
        size: resize the shorter side to it (Lanczos) and crop the centre to a square; None to leave as it is.

    Raises:
        Exception: whatever Pillow raises for an image that cannot be read.
    """
    with Image.open(io.BytesIO(blob)) as opened:
        if opened.mode.startswith(_WIDE_MODES):
            raise ValueError(f"it has more than 8 bits a channel (mode {opened.mode})")
        image = ImageOps.exif_transpose(opened).convert(mode)
    if size is not None:
        image = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(image))
    return pixels.unsqueeze(0) if mode == "L" else pixels.permute(2, 0, 1)


def upright_size(blob: bytes) -> tuple[int, int]:
    """(H, W) of an encoded image by its header, turned upright.

    Raises:
        Exception: whatever Pillow raises for what is no image.
    """
    with Image.open(io.BytesIO(blob)) as image:
        width, height = image.size
        sideways = image.getexif().get(0x0112, 1) >= 5  # the tag Orientation
    return (width, height) if sideways else (height, width)
