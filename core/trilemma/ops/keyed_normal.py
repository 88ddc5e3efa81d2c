"""Keyed standard normals."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.numerics.normal import reference_normal
from trilemma.ops.operator import Operator, compute_dtype, signed


def keyed_normal(out: Tensor, indices: Tensor, *, seed: int, step: int, stream: int) -> None:
    """Fills `out` [B, ...] with the standard normals of samples `indices` [B]; see `reference_normal`."""
    _KEYED_NORMAL(out, indices, signed(seed), step, stream)


def _reference(out: Tensor, indices: Tensor, seed: int, step: int, stream: int) -> None:
    """See `trilemma.engine.noise.keyed_normal`."""
    _check(out, indices, seed, step, stream)
    normals = reference_normal(seed, indices, step, math.prod(out.shape[1:]), stream)
    out.copy_(normals.to(compute_dtype(out.dtype)).view(out.shape))


def _check(out: Tensor, indices: Tensor, seed: int, step: int, stream: int) -> None:
    """Raises UsageError where the arguments of `keyed_normal` do not fit together."""
    if not out.is_floating_point() or indices.dtype != torch.int64 or indices.shape != out.shape[:1]:
        raise UsageError(
            f"out is {out.dtype} of shape {tuple(out.shape)} and indices {indices.dtype} of shape "
            f"{tuple(indices.shape)}; expected a floating-point out [B, ...] and int64 indices [B]"
        )


_KEYED_NORMAL = Operator(
    "keyed_normal",
    "Tensor(a!) out, Tensor indices, int seed, int step, int stream",
    "()",
    _reference,
    _check,
)
