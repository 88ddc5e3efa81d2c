"""Dynamic thresholding."""

from __future__ import annotations

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.ops.operator import Operator, compute_dtype


def dynamic_threshold(
    x: Tensor, quantile: float = 0.995, floor: float = 1.0, *, out: Tensor | None = None
) -> Tensor:
    """Clips each sample at a quantile of its own magnitudes and scales it back into the range of the data.

        s = max(floor, quantile of |x|),    out = clip(x, −s, s)·floor/s

    The quantile interpolates linearly between the two nearest ranks; NaN in a sample makes all of it NaN.

    Args:
        x: [B, ...], estimates x̂₀ of the data; half types are computed in float32.
        quantile: in [0, 1].
        floor: bound of the data, 1 for [−1, 1].
        out: receives the result; it may be x.

    Raises:
        UsageError: where the arguments do not fit together, or a gradient is asked for.

    References:
        Saharia et al., Photorealistic Text-to-Image Diffusion Models, arXiv:2205.11487.
    """
    out = torch.empty_like(x, memory_format=torch.contiguous_format) if out is None else out
    _DYNAMIC_THRESHOLD(out, x, quantile, floor)
    return out


def _reference(out: Tensor, x: Tensor, quantile: float, floor: float) -> None:
    """`dynamic_threshold` in PyTorch, by sorting."""
    _check(out, x, quantile, floor)
    if not x.numel():
        return
    compute = compute_dtype(x.dtype)
    rows = x.to(compute).flatten(1) if x.dim() > 1 else x.to(compute)[:, None]
    # Torch sorts NaN last.
    ordered = rows.abs().double().sort(1).values
    place = quantile * (rows.shape[1] - 1)
    rank = int(place)
    low, high = ordered[:, rank], ordered[:, min(rank + 1, rows.shape[1] - 1)]
    found = torch.where(low == high, low, low + (place - rank) * (high - low)) if place > rank else low
    found = torch.where(ordered[:, -1].isnan(), ordered[:, -1], found)
    bound = torch.where(found < floor, floor, found)[:, None]
    high_bound = bound.to(compute)
    clipped = torch.maximum(torch.minimum(rows, high_bound), -high_bound)
    out.copy_((clipped * (floor / bound).to(compute)).view(x.shape))


def _check(out: Tensor, x: Tensor, quantile: float, floor: float) -> None:
    if not x.dim() or not x.is_floating_point():
        raise UsageError(f"x is {x.dtype} of shape {tuple(x.shape)}; expected a floating-point batch")
    if out.shape != x.shape or not out.is_floating_point() or out.device != x.device:
        raise UsageError(
            f"out is {out.dtype} of shape {tuple(out.shape)} on {out.device}; expected a floating-point "
            f"{tuple(x.shape)} on {x.device} as x"
        )
    if not 0 <= quantile <= 1:
        raise UsageError(f"quantile={quantile} is out of range; give a number from 0 to 1")
    if not floor > 0:
        raise UsageError(f"floor={floor} is no bound; give a positive number")


_DYNAMIC_THRESHOLD = Operator(
    "dynamic_threshold", "Tensor(a!) out, Tensor x, float quantile, float floor", "()", _reference, _check
)
