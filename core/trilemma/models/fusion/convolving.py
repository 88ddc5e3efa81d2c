"""Convolutions of a fused network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from trilemma.models.fusion.normalizing import reaches
from trilemma.models.fusion.recording import note
from trilemma.models.fusion.report import CONVOLUTION
from trilemma.models.fusion.swapping import KERNEL_DTYPES, is_traced, own_class, parametrized, why_other_dtype
from trilemma.ops.convolution import conv3x3, transformed, why_left
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
    kind = own_class(convolution)
    if not isinstance(convolution, nn.Conv2d) or isinstance(convolution, nn.modules.lazy.LazyModuleMixin):
        return f"its class is {kind.__name__}, not Conv2d"
    if parametrized(convolution):
        return "it is parametrized"
    if not _reaches_sum(cast(type[nn.Conv2d], kind)):
        return f"the forward of its class {kind.__name__} computes it by itself, without Conv2d's"
    weight = convolution.weight
    why = why_unfit(convolution) or why_other_dtype(weight)
    if not why and weight.device.type != "cpu":
        why = f"it is on {weight.device}; 3×3 convolutions are swapped on the CPU"
    return why


def _reaches_sum(kind: type[nn.Conv2d]) -> bool:
    """Returns whether the forward of a class comes to `Conv2d._conv_forward`."""
    names = getattr(getattr(kind.forward, "__code__", None), "co_names", ())
    called = reaches(kind.forward, nn.Conv2d.forward) or "_conv_forward" in names
    return called and reaches(kind._conv_forward, nn.Conv2d._conv_forward)


class Convolved(nn.Conv2d):
    """A 3×3 convolution with its transformed filters kept from call to call; that of a subclass too.

    Attributes:
        _trilemma_kept: the filters, with what they were made of.
    """

    _trilemma_kept: Filters | None = None

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if torch.compiler.is_compiling():
            return _as_written(self, input, weight, bias)
        if why := _why_as_written(self, input, weight, bias):
            note(self, why=why)
            return _as_written(self, input, weight, bias)
        if torch.is_autocast_enabled("cpu"):
            input = input.to(torch.get_autocast_dtype("cpu"))
        if why := why_left(input, weight):
            note(self, why=why)
            return _as_written(self, input, weight, bias)
        kept = self._trilemma_kept
        if kept is None or not kept.are_of(weight):
            kept = Filters.of(weight)
            object.__setattr__(self, "_trilemma_kept", kept)
        note(self, CONVOLUTION)
        return conv3x3(input, weight, bias, filters=kept.transformed)


def _as_written(convolution: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    y: Tensor = nn.Conv2d._conv_forward(convolution, x, weight, bias)
    return y


def _why_as_written(convolution: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> str:
    """Returns why a call runs as torch writes it; "" where the operator computes it."""
    # Filters of weights that are made anew in each call would be too.
    if type(weight) is not nn.Parameter or weight is not convolution._parameters.get("weight"):
        return "its weights are made in each call"
    if torch.is_grad_enabled() and weight.requires_grad:
        return "its weights are trained"
    if type(x) not in (Tensor, nn.Parameter) or x.dim() != 4 or x.device.type != "cpu":
        return f"it convolves a {type(x).__name__} of another kind"
    if not x.is_floating_point() or not (x.dtype == weight.dtype or torch.is_autocast_enabled("cpu")):
        return f"it convolves {x.dtype} with {weight.dtype}"
    if weight.dtype not in KERNEL_DTYPES or (bias is not None and bias.dtype != weight.dtype):
        return f"no kernel computes in {weight.dtype}"
    if is_traced() or is_transformed(x, weight, bias):
        return "it is traced, or differentiated forward"
    return why_unfit(convolution)


@dataclass(frozen=True)
class Filters:
    """The transformed filters of some weights, and enough of these to see whether they have changed.

    A write that autograd counts changes the version, and other weights have other storage (that of these is held, so
    that none takes its place). A write past autograd (`.data`, NumPy) changes the probe: an element of every output
    channel; for tensors of inference mode, which have no version, all elements.
    """

    transformed: Tensor
    probe: Tensor
    probed: Tensor
    version: int
    form: tuple[torch.dtype, torch.Size, tuple[int, ...]]

    @classmethod
    def of(cls, weight: Tensor) -> Filters:
        """Returns the filters of weights."""
        weight = weight.detach()
        probe = weight
        if not weight.is_inference():
            # Along the diagonal of the channels, as far as it goes.
            step = weight.stride(0) + (weight.stride(1) if len(weight) <= weight.shape[1] else 0)
            probe = weight.as_strided((len(weight),), (step,))
        form = (weight.dtype, weight.shape, weight.stride())
        return cls(transformed(weight), probe, probe.clone(), _version(weight), form)

    def are_of(self, weight: Tensor) -> bool:
        """Returns whether they are the filters of these weights as they are now."""
        return (
            weight.data_ptr() == self.probe.data_ptr()
            and _version(weight) == self.version
            and (weight.dtype, weight.shape, weight.stride()) == self.form
            and torch.equal(self.probe, self.probed)
        )


def _version(weight: Tensor) -> int:
    return -1 if weight.is_inference() else weight._version
