"""The law of a mixture of normals in the plane once it is rounded to 256 levels an axis."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from trilemma.errors import UsageError

LEVELS = 256

Layout: TypeAlias = Literal["ring", "grid"]


def laid_out(layout: Layout, modes: int, radius: float) -> Tensor:
    """Returns the centres of a layout, float64 [modes, 2].

    Args:
        layout: ring, around the origin; grid, of √modes rows and as many columns.
        modes: number of centres.
        radius: of the ring; half the side of the grid.

    Raises:
        UsageError: for an unknown layout, or a grid whose number of modes is no square.
    """
    if layout == "ring":
        return ring(modes, radius)
    if layout != "grid":
        raise UsageError(f"unknown layout={layout!r} of modes; expected ring or grid")
    side = math.isqrt(modes)
    if side * side != modes:
        raise UsageError(f"a grid of modes={modes} has no equal sides; give a square, such as {side**2}")
    line = radius * torch.linspace(-1, 1, side, dtype=torch.float64) if side > 1 else torch.zeros(1).double()
    return torch.cartesian_prod(line, line)


def ring(modes: int, radius: float) -> Tensor:
    """Centres radius · (cos 2πk/modes, sin 2πk/modes), k = 0 .. modes − 1, float64 [modes, 2]."""
    angle = 2 * math.pi * torch.arange(modes, dtype=torch.float64) / modes
    return radius * torch.stack([angle.cos(), angle.sin()], 1)


def rounded(x: Tensor) -> Tensor:
    """Returns the level u = round(255 (x + 1)/2) of coordinates x, those beyond [−1, 1] at its ends, uint8."""
    return ((x + 1) * ((LEVELS - 1) / 2)).round().clamp(0, LEVELS - 1).to(torch.uint8)


def axis_laws(centres: Tensor, deviation: float) -> Tensor:
    """Returns p_kj(u) of coordinate j of a rounded point of mode k, float64 [M, 2, 256], exactly:

        p_kj(u) = Φ((b_{u+1} − μ_kj)/s) − Φ((b_u − μ_kj)/s),

    b_u = (2u − 1)/255 − 1 being the edge below level u, but b_0 = −∞ and b_256 = ∞, since what lies beyond is clamped.

    Args:
        centres: μ, float64 [M, 2].
        deviation: s.
    """
    inner = (2 * torch.arange(1, LEVELS, dtype=torch.float64) - 1) / (LEVELS - 1) - 1
    end = torch.tensor([math.inf], dtype=torch.float64)
    edges = torch.cat([-end, inner, end])
    return torch.special.ndtr((edges - centres.unsqueeze(-1)) / deviation).diff(dim=-1)


def grid_law(centres: Tensor, deviation: float) -> Tensor:
    """Returns the law P(u, v) = 1/M Σ_k p_k1(u) p_k2(v) of a rounded point of any mode, float64 [256, 256]."""
    axes = axis_laws(centres, deviation)
    return torch.einsum("ku,kv->uv", axes[:, 0], axes[:, 1]) / len(centres)


def entropy(law: Tensor) -> float:
    """Returns −Σ P log₂ P/2 of a law [256, 256], in bits per dimension: no model can be below."""
    return float(-torch.xlogy(law, law).sum() / (2 * math.log(2)))
