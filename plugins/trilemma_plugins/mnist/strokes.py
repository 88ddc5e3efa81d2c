"""Boldness and slant of a handwritten digit, measured from its pixels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

BOLDNESS = ("thin", "medium", "bold")
SLANT = ("left", "upright", "right")
# Terciles of the 60,000 training images, rounded.
THICKNESS_BOUNDS = (2.13, 2.62)
ANGLE_BOUNDS = (-0.6, 12.6)
# Images whose gradients stay in the cache.
_CHUNK = 500


def thickness(images: Tensor) -> Tensor:
    """Returns the thickness of the strokes in pixels, 2 Σu / Σ|∇u|, float64 [N].

    The denominator is the total variation, the length of the outline: a bar of width w and length l ≫ w has the area
    w l and an outline of 2 l.

    Args:
        images: ink u from 0 to 1 [N, 1, H, W]; one without ink has the thickness 0.
    """
    ink = pad(images[:, 0].double(), (1, 1, 1, 1))
    across = ink[:, 1:, 1:] - ink[:, 1:, :-1]
    down = ink[:, 1:, 1:] - ink[:, :-1, 1:]
    outline = (across.square() + down.square()).sqrt().sum((1, 2))
    return 2 * ink.sum((1, 2)) / outline.clamp_min(1e-12)


def angle(images: Tensor) -> Tensor:
    """Returns the angle to the vertical in degrees, positive where the top leans to the right, float64 [N].

    It is arctan(−μ_xy / μ_yy) of the second moments of the ink, with x to the right and y downwards: the shear that
    makes the digit upright.

    Args:
        images: ink u from 0 to 1 [N, 1, H, W]; one without ink has the angle 0.
    """
    ink = images[:, 0].double()
    mass = ink.sum((1, 2)).clamp_min(1e-12)
    rows, columns = (torch.arange(size, dtype=torch.float64, device=ink.device) for size in ink.shape[1:])
    y = rows - ((ink.sum(2) * rows).sum(1) / mass)[:, None]
    x = columns - ((ink.sum(1) * columns).sum(1) / mass)[:, None]
    mixed = torch.einsum("nyx,ny,nx->n", ink, y, x) / mass
    vertical = (ink.sum(2) * y.square()).sum(1) / mass
    return torch.rad2deg(torch.atan2(-mixed, vertical))


def measures(images: Tensor) -> tuple[Tensor, Tensor]:
    """Returns thickness in pixels and angle in degrees of images uint8 [N, 1, H, W], float64 [N] each."""
    found = [(thickness(part), angle(part)) for part in ((chunk / 255) for chunk in images.split(_CHUNK))]
    thicknesses, angles = (torch.cat(parts) for parts in zip(*found, strict=True))
    return thicknesses, angles


def boldness(thicknesses: Tensor) -> Tensor:
    """Returns indices into BOLDNESS, int64 [N], of thicknesses in pixels: thin below 2.13, bold from 2.62 on."""
    return _graded(thicknesses, THICKNESS_BOUNDS)


def slant(angles: Tensor) -> Tensor:
    """Returns indices into SLANT, int64 [N], of angles in degrees: left below −0.6, right from 12.6 on."""
    return _graded(angles, ANGLE_BOUNDS)


def _graded(values: Tensor, bounds: tuple[float, float]) -> Tensor:
    edges = torch.tensor(bounds, dtype=values.dtype, device=values.device)
    return torch.bucketize(values, edges, right=True)
