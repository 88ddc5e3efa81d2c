"""Samples as pictures: bytes, grids, and PNG with provenance."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.output.atomic import write_atomically

METADATA_KEY = "trilemma"
_GRID_SIZE = 512  # pixels that a grid is enlarged towards, by a whole factor


def to_bytes(samples: Tensor) -> Tensor:
    """uint8 of samples in [−1, 1]: round(255 (x + 1)/2), clipped."""
    return samples.detach().float().clamp(-1, 1).add(1).mul(127.5).round().to("cpu", torch.uint8)


def tile(samples: Tensor, gap: int = 2) -> Tensor:
    """One image [C, H', W'] of samples [n, C, H, W], row by row in a nearly square grid, `gap` pixels apart."""
    n, channels, height, width = samples.shape
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    canvas = torch.zeros(
        channels, rows * (height + gap) + gap, columns * (width + gap) + gap, dtype=torch.uint8
    )
    for index, image in enumerate(to_bytes(samples)):
        top = gap + index // columns * (height + gap)
        left = gap + index % columns * (width + gap)
        canvas[:, top : top + height, left : left + width] = image
    return canvas


def png(image: Tensor, provenance: Mapping[str, Any]) -> bytes:
    """PNG of a uint8 image [C, H, W], C = 1 or 3, with the provenance as JSON in its text metadata.

    Raises:
        UsageError: for another number of channels.
    """
    if image.shape[0] not in (1, 3):
        raise UsageError(f"an image of {image.shape[0]} channels is no picture; write the samples as .npz")
    array = image.permute(1, 2, 0).numpy()
    picture = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    text = PngInfo()
    text.add_itxt(METADATA_KEY, json.dumps(provenance, ensure_ascii=False))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()


def write_png_grid(path: Path, samples: Tensor, provenance: Mapping[str, Any]) -> None:
    """Writes samples [n, C, H, W] in [−1, 1] as one PNG, small grids enlarged by a whole factor."""
    grid = tile(samples)
    factor = max(1, _GRID_SIZE // max(grid.shape[1:]))
    write_atomically(path, png(grid.repeat_interleave(factor, 1).repeat_interleave(factor, 2), provenance))
