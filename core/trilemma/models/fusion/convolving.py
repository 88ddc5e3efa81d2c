"""Convolutions of a fused network."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from trilemma.models.fusion.swapping import Swapped, other_class, run_own, why_other_dtype
from trilemma.ops.convolution import conv3x3, transformed
from trilemma.ops.operator import is_transformed

# With fewer input channels the direct sum is as fast.
LEAST_CHANNELS = 8


def why_unfit(convolution: nn.Conv2d) -> str:
    """Returns why `conv3x3` does not compute it; "" where it does."""
    kernel, stride = convolution.kernel_size, convolution.stride
    if kernel != (3, 3):
        return f"its kernel is {'×'.join(map(str, kernel))}, not 3×3"
    if stride != (1, 1) or convolution.dilation != (1, 1):
        return f"it has stride {stride} and dilation {convolution.dilation}, not 1"
    if convolution.groups != 1:
        return f"it has {convolution.groups} groups, not one"
    if convolution.padding not in ((1, 1), "same") or convolution.padding_mode != "zeros":
        return f"it is padded by {convolution.padding} {convolution.padding_mode}, not by one pixel of zeros"
    if convolution.in_channels < LEAST_CHANNELS:
        return f"it has {convolution.in_channels} input channels; below {LEAST_CHANNELS} the direct sum is as fast"
    return ""


def why_not_convolved(convolution: nn.Module) -> str:
    """Returns why a convolution that is not fused cannot be; "" where it can."""
    if type(convolution) is not nn.Conv2d:
        return other_class(convolution, nn.Conv2d)
    weight = convolution.weight
    why = why_unfit(convolution) or why_other_dtype(weight)
    if not why and weight.device.type != "cpu":
        why = f"it is on {weight.device}; 3×3 convolutions are swapped on the CPU"
    return why


class Convolved(Swapped):
    """A 3×3 convolution with its transformed filters kept from call to call.

    Attributes:
        kept: the weights that the filters were made of, and the filters.
    """

    not_copied = ("kept",)

    own_class: type[nn.Conv2d]
    weight: nn.Parameter
    bias: nn.Parameter | None
    kept: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        # Not where somebody kept this forward from before `unfuse`.
        if not isinstance(self, Convolved):
            return run_own(self, x)
        weight, bias = self.weight, self.bias
        trains = torch.is_grad_enabled() and weight.requires_grad
        autocast = torch.is_autocast_enabled("cpu")
        fitting = x.dim() == 4 and x.device.type == "cpu" and (autocast or x.dtype == weight.dtype)
        fitting = (
            fitting
            and type(x) in (Tensor, nn.Parameter)
            and x.is_floating_point()
            and not why_unfit(cast(nn.Conv2d, self))
        )
        if trains or torch.compiler.is_compiling() or not fitting or is_transformed(x, weight, bias):
            y: Tensor = run_own(self, x)
            return y
        if autocast:
            x = x.to(torch.get_autocast_dtype("cpu"))
        return conv3x3(x, weight, bias, filters=self.filters())

    def filters(self) -> Tensor:
        """Returns the transformed filters of the present weights."""
        weight, kept = self.weight.detach(), self.kept
        # The weights are compared, since a write through `.data` does not change their version.
        if kept is None or kept[0].dtype != weight.dtype or not torch.equal(kept[0], weight):
            kept = (weight.clone(), transformed(weight))
            object.__setattr__(self, "kept", kept)
        return kept[1]
