"""Two gradients in one backward pass: that of the bound for the ends of γ, that of its variance for what lies between.

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


class Gate:
    """Multiplies the gradients that pass through it by `factors` [B], which may be set after the forward pass."""

    def __init__(self) -> None:
        self.factors: Tensor | None = None

    def open(self, factors: Tensor) -> None:
        """Sets the factors of the examples [B], such as 2 L_i."""
        self.factors = factors.detach()

    def __call__(self, value: Tensor) -> Tensor:
        """`value` [B], or [B] twice over, unchanged."""
        return cast(Tensor, _Scaled.apply(value, self))


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, gate: Gate) -> Tensor:
        ctx.gate = gate
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient, factors = gradients[0], ctx.gate.factors
        if factors is None:
            raise RuntimeError("the gate was never opened: call open(factors) before backward")
        return gradient * factors.to(gradient), None
