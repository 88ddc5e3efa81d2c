"""Samples as pictures: bytes, grids, and PNG with provenance."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from trilemma.errors import OutputError, UsageError
from trilemma.output.atomic import replacing
from trilemma.output.provenance_json import KEY, to_json

# A grid is enlarged towards so many pixels, by a whole factor.
_GRID_SIZE = 512


def to_bytes(samples: Tensor) -> Tensor:
    """Returns samples x in [−1, 1] as bytes u = round(127.5 (x + 1)), clipped; uint8 on the host, shape kept.

    Raises:
        OutputError: for samples that are not finite.
    """
    x = samples.detach().float()
    if not x.isfinite().all():
        raise OutputError(
            "the samples hold values that are not finite, which no picture can show; check the model"
        )
    return ((x + 1) * 127.5).round_().clamp_(0, 255).to("cpu", torch.uint8)


def tile(images: Tensor, columns: int | None = None, gap: int = 2) -> Tensor:
    """Tiles images [n, C, H, W] into one [C, H', W'], row by row, on black that shows `gap` pixels all around.

    Args:
        images: uint8.
        columns: images in a row; ⌈√n⌉, for a grid that is nearly square, by default.
        gap: pixels around every image.
    """
    n, channels, height, width = images.shape
    columns = min(columns or math.ceil(math.sqrt(n)), n)
    rows = math.ceil(n / columns)
    cells = torch.zeros(rows * columns, channels, height + gap, width + gap, dtype=torch.uint8)
    cells[:n, :, gap:, gap:] = images
    cells = cells.unflatten(0, (rows, columns)).permute(2, 0, 3, 1, 4)
    grid = cells.reshape(channels, rows * (height + gap), columns * (width + gap))
    return torch.nn.functional.pad(grid, (0, gap, 0, gap))


def encode_png(image: Tensor, provenance: Mapping[str, Any]) -> bytes:
    """Encodes a uint8 image [C, H, W], C = 1 or 3, as PNG with the provenance as JSON in its text entry "trilemma".

    Raises:
        UsageError: for another number of channels.
    """
    array = pixels_of(image)
    text = PngInfo()
    text.add_itxt(KEY, to_json(provenance))
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()


def sheet(samples: Tensor, columns: int | None = None) -> Tensor:
    """Returns samples [n, C, H, W] in [−1, 1] as one image uint8 [C, H', W'].

    One sample is an image of its own size. Several are a grid, enlarged by a whole factor where it is small.

    Args:
        samples: what to show, row by row.
        columns: samples in a row; ⌈√n⌉ by default.

    Raises:
        OutputError: for samples that are not finite.
    """
    images = to_bytes(samples)
    return images[0] if len(images) == 1 else enlarged(tile(images, columns))


def enlarged(grid: Tensor) -> Tensor:
    """Returns an image [C, H, W] enlarged by a whole factor towards 512 pixels."""
    factor = max(1, _GRID_SIZE // max(grid.shape[1:]))
    return grid.repeat_interleave(factor, 1).repeat_interleave(factor, 2)


def pixels_of(image: Tensor) -> npt.NDArray[np.uint8]:
    """Returns an image uint8 [C, H, W] as Pillow takes it, [H, W] or [H, W, 3].

    Raises:
        UsageError: for another number of channels.
    """
    check_channels(len(image))
    array: npt.NDArray[np.uint8] = (
        (image[0] if len(image) == 1 else image.permute(1, 2, 0)).contiguous().numpy()
    )
    return array


def write_png_grid(
    path: str | Path, samples: Tensor, provenance: Mapping[str, Any], columns: int | None = None
) -> None:
    """Writes samples [n, C, H, W] in [−1, 1] as one PNG; see `sheet`.

    Args:
        path: the file; one that is there is replaced.
        samples: what to show, row by row; C is 1 or 3.
        provenance: what made them, kept as JSON in the text entry "trilemma".
        columns: samples in a row; ⌈√n⌉ by default.

    Raises:
        UsageError: for another number of channels.
        OutputError: for samples that are not finite, or where the disk refuses; nothing is left behind.
    """
    content = encode_png(sheet(samples, columns), provenance)
    with replacing(Path(path)) as file:
        file.write(content)


def check_channels(channels: int) -> None:
    """Raises UsageError for a number of channels that a PNG cannot hold."""
    if channels not in (1, 3):
        raise UsageError(
            f"the samples have {channels} channels and a picture has 1 or 3; write the samples as .npz"
        )
