"""Blur kernels, whose weights sum to 1, and the filtering of pictures with them."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

# A narrower one is a single pixel in float64 already.
_NARROWEST = 1e-3


def isotropic(size: int, deviation: float, shift: float = 0.0) -> Tensor:
    """Returns the kernel k(p) ∝ exp(−‖p − shift‖² / 2σ²) [size, size], float64.

    Args:
        size: odd.
        deviation: σ, in pixels.
        shift: of the centre, in pixels to the right and down.
    """
    variance = max(deviation, _NARROWEST) ** 2
    return anisotropic(size, 0.0, variance, variance, shift)


def anisotropic(size: int, angle: float, first: float, second: float, shift: float = 0.0) -> Tensor:
    """Returns the kernel k(p) ∝ exp(−pᵀ Σ⁻¹ p / 2) [size, size], float64, Σ having these eigenvalues.

    Args:
        size: odd.
        angle: of the first eigenvector, in radians from the x-axis towards the y-axis.
        first, second: eigenvalues, variances in pixels².
        shift: of the centre, in pixels to the right and down.
    """
    place = torch.arange(size, dtype=torch.float64) - (size - 1) / 2 - shift
    y, x = torch.meshgrid(place, place, indexing="ij")
    along = math.cos(angle) * x + math.sin(angle) * y
    across = math.cos(angle) * y - math.sin(angle) * x
    first, second = max(first, _NARROWEST**2), max(second, _NARROWEST**2)
    exponent = (along.square() / first + across.square() / second) / 2
    # A centre between two pixels must not underflow at both.
    kernel = torch.exp(exponent.min() - exponent)
    return kernel / kernel.sum()


def filtered(image: Tensor, kernel: Tensor) -> Tensor:
    """Returns y(p) = Σ_q k(q) x(p + q) of an image [C, H, W], mirrored at its borders without repeating them; float64.

    The sum is taken by NumPy's Fourier transform, in one thread, so that the bits do not depend on the threads.

    Args:
        image: float64.
        kernel: [n, n] with n odd, q = 0 in its middle.
    """
    reach = len(kernel) // 2
    sides = ((0, 0), (reach, reach), (reach, reach))
    padded = np.pad(image.numpy(), sides, mode="reflect")
    size = padded.shape[1:]
    # Correlation is convolution with the kernel turned by 180°.
    weights = np.fft.rfft2(np.flip(kernel.numpy(), (0, 1)), size)
    whole = np.fft.irfft2(np.fft.rfft2(padded, axes=(1, 2)) * weights, size, axes=(1, 2))
    return torch.from_numpy(np.ascontiguousarray(whole[:, 2 * reach :, 2 * reach :]))
