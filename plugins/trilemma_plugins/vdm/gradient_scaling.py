"""Two gradients in one backward pass: the bound's for the ends of γ, its variance's for the interior.

For the interior η of the schedule the mean of the loss L is constant and ∇ E[L²] = E[2 L ∇L] is the gradient of its
variance. Every γ(t_i) belongs to one example i with one loss L_i, so that an identity on η(t_i) whose backward
multiplies by 2 L_i turns the bound's gradient into it, while the ends, outside the identity, keep the bound's own
(2107.00630, appendix I). Where the network's loss is the weighted w_i L_i, an identity on γ(t_i) itself whose backward
multiplies by 1/w_i gives the schedule the gradient of the bound again.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor


class GradientScaling:
    """Multiplies the gradients that pass through it by `factors` [B], which may be set after the forward pass."""

    def __init__(self) -> None:
        self.factors: Tensor | None = None

    def set(self, factors: Tensor) -> None:
        """Sets the factors of the examples [B], such as 2 L_i."""
        self.factors = factors.detach()

    def __call__(self, value: Tensor) -> Tensor:
        """Returns `value` [B], or [B] twice over, unchanged."""
        return cast(Tensor, _Scaled.apply(value, self))


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, scaling: GradientScaling) -> Tensor:
        ctx.scaling = scaling
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient, factors = gradients[0], ctx.scaling.factors
        if factors is None:
            raise RuntimeError("the gradient's factors are not set; call set(factors) before backward")
        return gradient * factors.to(gradient), None
