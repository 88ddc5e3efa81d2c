"""The operations of a degradation: pure functions of images [C, H, W] in [0, 1], float64."""

from __future__ import annotations

import io
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trilemma.numerics.resizing import resized
from trilemma_plugins.bsr.draws import Draws
from trilemma_plugins.bsr.kernels import anisotropic, filtered, isotropic

# Rules of the resizings, of which one is drawn.
RULES: Final = ("bilinear", "bicubic", "area")
# Side of the Gaussian kernel before every n-th pixel is taken.
_SIDE = 25


def blurred(image: Tensor, factor: int, width: float, draws: Draws) -> Tensor:
    """Returns the image under a random Gaussian kernel of 7 to 25 pixels: anisotropic in one half of the cases.

    The anisotropic one has an angle ~ U(0, π) and eigenvalues ~ U(0, w(4 + factor)); the isotropic one a deviation
    ~ U(0, w(2 + 0.2 factor)).

    Args:
        image: the picture.
        factor: of the degradation.
        width: w.
        draws: of the kernel.
    """
    size = 2 * draws.integer(2, 11) + 3
    if draws.chance(0.5):
        largest = width * (4 + factor)
        angle = draws.uniform(0, np.pi)
        kernel = anisotropic(size, angle, draws.uniform(0, largest), draws.uniform(0, largest))
    else:
        kernel = isotropic(size, draws.uniform(0, width * (2 + 0.2 * factor)))
    return filtered(image, kernel).clamp(0, 1)


def resized_to(image: Tensor, size: tuple[int, int], rule: str) -> Tensor:
    """Returns the image in a size (H, W), at least one pixel each way, by a rule of `trilemma.numerics.resizing`."""
    return resized(image[None], (max(1, size[0]), max(1, size[1])), rule)[0].clamp(0, 1)


def shrunk(image: Tensor, factor: int, resize: float, draws: Draws) -> Tensor:
    """Returns a smaller image: by 1/U(1, 2 factor) with the probability `resize`, else every `factor`-th pixel.

    Before the latter, it is blurred by a Gaussian of deviation ~ U(0.1, 0.6 factor), whose centre is that of the
    pixels which one pixel stands for.
    """
    height, width = image.shape[1:]
    if draws.chance(resize):
        ratio = draws.uniform(1, 2 * factor)
        return resized_to(image, (int(height / ratio), int(width / ratio)), draws.one_of(RULES))
    kernel = isotropic(_SIDE, draws.uniform(0.1, 0.6 * factor), shift=(factor - 1) / 2)
    return filtered(image, kernel).clamp(0, 1)[:, ::factor, ::factor]


def to_levels(image: Tensor) -> Tensor:
    """Returns u = round(255 x), uint8."""
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)


def from_levels(levels: Tensor) -> Tensor:
    """Returns x = u/255, float64."""
    return levels.to(torch.float64) / 255


def compressed(image: Tensor, quality: int) -> Tensor:
    """Returns the image after JPEG of a quality from 1 to 95, by Pillow, colours subsampled 4:2:0."""
    levels = to_levels(image).permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(levels if levels.shape[2] == 3 else levels[..., 0]).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as read:
        found = np.array(read).reshape(levels.shape)
    return from_levels(torch.from_numpy(found).permute(2, 0, 1))


def sharpened(image: Tensor, deviation: float, weight: float) -> Tensor:
    """Returns x + weight·(x − G x), clipped to [0, 1], G a Gaussian of this deviation (unsharp masking)."""
    kernel = isotropic(2 * int(3 * deviation) + 3, deviation)
    return (image + weight * (image - filtered(image, kernel))).clamp(0, 1)
