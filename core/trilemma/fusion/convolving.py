"""Convolutions of a fused network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trilemma.fusion.replacement import Replacement
from trilemma.ops.convolution import conv3x3, transformed

LEAST_CHANNELS = 8  # of fewer input channels the direct sum is as fast


def fits(convolution: nn.Conv2d) -> bool:
    """Whether `conv3x3` computes it."""
    kind = (convolution.kernel_size, convolution.stride, convolution.dilation, convolution.groups)
    same = convolution.padding in ((1, 1), "same") and convolution.padding_mode == "zeros"
    return kind == ((3, 3), (1, 1), (1, 1), 1) and same and convolution.in_channels >= LEAST_CHANNELS


class Convolved(Replacement):
    """A 3×3 convolution with its transformed filters kept from call to call."""

    owner: nn.Conv2d

    def __init__(self, owner: nn.Conv2d) -> None:
        super().__init__(owner)
        self.kept: tuple[Tensor, Tensor] | None = None  # weights and their filters

    def __call__(self, x: Tensor) -> Tensor:
        weight, bias = self.owner.weight, self.owner.bias
        trains = torch.is_grad_enabled() and weight.requires_grad
        autocast = torch.is_autocast_enabled("cpu")
        fitting = x.dim() == 4 and x.device.type == "cpu" and (autocast or x.dtype == weight.dtype)
        if trains or torch.compiler.is_compiling() or not fitting:
            y: Tensor = self.own(x)
            return y
        if autocast:
            x = x.to(torch.get_autocast_dtype("cpu"))
        return conv3x3(x, weight, bias, filters=self.filters())

    def filters(self) -> Tensor:
        """Those of the weights as they are now."""
        weight, kept = self.owner.weight.detach(), self.kept
        # Compared, not asked for their version: what is written through `.data` leaves that as it was.
        if kept is None or kept[0].dtype != weight.dtype or not torch.equal(kept[0], weight):
            self.kept = kept = (weight.clone(), transformed(weight))
        return kept[1]
