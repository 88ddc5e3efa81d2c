"""Gated linear units: GEGLU and SwiGLU of a projected tensor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from trilemma.errors import UsageError
from trilemma.ops.operator import (
    Operator,
    check_device,
    check_real,
    compute_dtype,
    is_transformed,
    library,
    why_sizes_left,
    why_tokens_left,
)


def glu(x: Tensor, *, silu: bool = False) -> Tensor:
    """Computes the gated unit GEGLU, or SwiGLU, of a tensor that holds the value and its gate.

        (a, g) = x,    y = a act(g)

    Args:
        x: [..., 2C], a before g; half types are computed in float32. Rows that lie apart run natively too. Gradients
            reach it, and once more through the reference where they are asked for. Where PyTorch was measured to be
            faster (`trilemma.ops.choice`), its own operators are called one after the other.
        silu: whether act is SiLU, g σ(g), or GELU, g Φ(g) with the exact normal distribution function.

    Returns:
        y, [..., C], contiguous.

    Raises:
        UsageError: for a last dimension that has no halves.

    References:
        Shazeer, GLU Variants Improve Transformer, arXiv:2002.05202.
    """
    if why_tokens_left("glu", x) and x.shape[-1] % 2 == 0:
        value, gate = x.chunk(2, -1)
        return (value * (F.silu(gate) if silu else F.gelu(gate))).contiguous()
    y: Tensor = _GLU(x, silu)
    return y


def _reference(x: Tensor, silu: bool) -> Tensor:
    """`glu` in PyTorch."""
    _check(x, silu)
    value, gate = x.to(compute_dtype(x.dtype)).chunk(2, -1)
    y = (value * (F.silu(gate) if silu else F.gelu(gate))).to(x.dtype)
    return y if is_transformed(x) else y.contiguous()


def _reference_backward(dy: Tensor, x: Tensor, silu: bool) -> Tensor:
    """The gradient of x."""
    _check_backward(dy, x, silu)
    compute = compute_dtype(x.dtype)
    value, gate = x.to(compute).chunk(2, -1)
    d = dy.to(compute)
    if silu:
        sigmoid = gate.sigmoid()
        activated, slope = gate * sigmoid, sigmoid * (1 + gate * (1 - sigmoid))
    else:
        below = torch.special.ndtr(gate)
        # 1/√(2π).
        activated, slope = gate * below, below + gate * torch.exp(-0.5 * gate.square()) * 0.3989422804014327
    return torch.cat([d * activated, d * value * slope], -1).to(x.dtype)


def _check(x: Tensor, silu: bool) -> None:
    check_real("x", x)
    if not x.dim() or x.shape[-1] % 2:
        raise UsageError(f"x has shape {tuple(x.shape)}; expected [..., 2C], a value and its gate")


def _check_backward(dy: Tensor, x: Tensor, silu: bool) -> None:
    _check(x, silu)
    shape = (*x.shape[:-1], x.shape[-1] // 2)
    if tuple(dy.shape) != shape or dy.dtype != x.dtype:
        raise UsageError(f"dy is {dy.dtype} of shape {tuple(dy.shape)}; expected {x.dtype} {shape}")
    check_device("dy", dy, x)


def _fake(x: Tensor, silu: bool) -> Tensor:
    return x.new_empty((*x.shape[:-1], x.shape[-1] // 2))


def _fake_backward(dy: Tensor, x: Tensor, silu: bool) -> Tensor:
    return x.new_empty(x.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: Any, output: Tensor) -> None:
    x, ctx.silu = inputs
    ctx.save_for_backward(x)


def _gradient(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
    (x,) = ctx.saved_tensors
    backward = _reference_backward if torch.is_grad_enabled() else _BACKWARD
    return backward(dy, x, ctx.silu), None


_GLU = Operator(
    "glu",
    "Tensor x, bool silu",
    "Tensor",
    _reference,
    _check,
    _fake,
    gradients=("x",),
    why_left=lambda x, _: why_tokens_left("glu", x),
)
_BACKWARD = Operator(
    "glu_backward",
    "Tensor dy, Tensor x, bool silu",
    "Tensor",
    _reference_backward,
    _check_backward,
    _fake_backward,
    why_left=lambda dy, x, _: why_sizes_left("glu_backward", x),
)
torch.library.register_autograd("trilemma::glu", _gradient, setup_context=_save, lib=library)
