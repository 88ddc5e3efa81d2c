"""Convolutions of a fused network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trilemma.models.fusion.swapping import Swapped, run_own
from trilemma.ops.convolution import conv3x3, transformed
from trilemma.ops.operator import is_transformed

LEAST_CHANNELS = 8  # of fewer input channels the direct sum is as fast


def fits(convolution: nn.Conv2d) -> bool:
    """Whether `conv3x3` computes it."""
    kind = (convolution.kernel_size, convolution.stride, convolution.dilation, convolution.groups)
    same = convolution.padding in ((1, 1), "same") and convolution.padding_mode == "zeros"
    return kind == ((3, 3), (1, 1), (1, 1), 1) and same and convolution.in_channels >= LEAST_CHANNELS


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
        fitting = fitting and type(x) in (Tensor, nn.Parameter) and x.is_floating_point() and fits(self)  # type: ignore[arg-type]
        if trains or torch.compiler.is_compiling() or not fitting or is_transformed(x, weight, bias):
            y: Tensor = run_own(self, x)
            return y
        if autocast:
            x = x.to(torch.get_autocast_dtype("cpu"))
        return conv3x3(x, weight, bias, filters=self.filters())

    def filters(self) -> Tensor:
        """Those of the weights as they are now."""
        weight, kept = self.weight.detach(), self.kept
        # Compared, not asked for their version: what is written through `.data` leaves that as it was.
        if kept is None or kept[0].dtype != weight.dtype or not torch.equal(kept[0], weight):
            kept = (weight.clone(), transformed(weight))
            object.__setattr__(self, "kept", kept)
        return kept[1]
