"""3×3 convolutions with a quarter of the multiplications."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.ops import choice
from trilemma.ops.operator import Operator, check_real, library, requested_backend

# As csrc/include/trilemma/conv3x3.h has them.
# The last point is infinity.
_POINTS: Final = (0.0, 0.625, -0.625, 1.5, -1.5)
_BLOCK, _LAST_BLOCK = 32, 16


def conv3x3(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, filters: Tensor | None = None
) -> Tensor:
    """Computes the convolution of a 3×3 kernel with stride 1 and one pixel of zeros around, by Winograd's F(4×4, 3×3).

        y[b, k] = Σ_c x[b, c] ⋆ weight[k, c] + bias[k]

    Tiles of 6×6 pixels are evaluated, as polynomials, at the points 0, ±5/8, ±3/2 and infinity along both sides,
    multiplied with the transformed filters there, and interpolated to 4×4 pixels: 36 multiplications for 144. In
    float32 the error is about three times that of the direct sum. Half types are computed in float32. Gradients reach
    x, weight and bias. Where PyTorch was measured to be faster (`trilemma.ops.choice`), its direct sum is taken.

    Args:
        x: [B, C, H, W], contiguous or channels-last; y keeps the memory format.
        weight: [K, C, 3, 3].
        bias: [K].
        filters: `transformed(weight)`, where it was kept from an earlier call.

    Returns:
        [B, K, H, W].

    Raises:
        UsageError: where the arguments do not fit together.

    References:
        Lavin, Gray, Fast Algorithms for Convolutional Neural Networks, arXiv:1509.09308.
    """
    if why_left(x, weight) and not torch.is_autocast_enabled("cpu"):
        try:
            return _direct(x, weight, bias)
        except RuntimeError:
            _check(x, weight, bias, transformed(weight))
            raise
    if filters is None:
        filters = transformed(weight)
    y: Tensor = _CONV3X3(x, weight, bias, filters)
    return y


def why_left(x: Tensor, weight: Tensor, *_: object) -> str:
    """Returns why a convolution is left to PyTorch's direct sum; "" where it is not."""
    if not choice.chooses("conv3x3") or torch.compiler.is_compiling():
        return ""
    if not x.is_cpu or x.dim() != 4 or weight.dim() != 4 or not weight.is_floating_point():
        return ""
    batch, channels, height, width = x.shape
    outgoing, incoming, *kernel = weight.shape
    if incoming != channels or kernel != [3, 3]:
        return ""
    pixels, layout = batch * height * width, 0 if x.is_contiguous() else 1
    if not pixels * incoming * outgoing:
        return ""
    why = choice.why_left("conv3x3", x.dtype, layout, pixels * pixels, incoming * outgoing)
    # Reading the environment takes as long as all before, and most calls need not.
    return why if why and requested_backend() == "auto" else ""


@torch.no_grad()
def transformed(weight: Tensor) -> Tensor:
    """Returns the filters that `conv3x3` multiplies with: G w Gᵀ of each kernel w, four times the weights' memory.

    Args:
        weight: [K, C, 3, 3].

    Returns:
        float32, flat; for each block of 32 output channels (16 where no more are left) [36, C, its width].
    """
    check_real("weight", weight)
    if weight.dim() != 4 or weight.shape[2:] != (3, 3):
        raise UsageError(f"weight has shape {tuple(weight.shape)}; expected [K, C, 3, 3]")
    G = _evaluation().to(weight.device)
    points = torch.einsum("ia,kcab,jb->ijck", G, weight.double(), G).float().flatten(0, 1)
    points = torch.nn.functional.pad(points, (0, -weight.shape[0] % _LAST_BLOCK))
    blocks = points.split(_BLOCK, dim=2)
    return torch.cat([block.reshape(-1) for block in blocks])


def _evaluation() -> Tensor:
    """G: the values of a quadratic at the points, over what the Lagrange polynomials of the points divide by."""
    rows = []
    for i, point in enumerate(_POINTS):
        scale = 1.0
        for j, other in enumerate(_POINTS):
            scale *= 1.0 if i == j else point - other
        rows.append([point**power / scale for power in range(3)])
    return torch.tensor([*rows, [0.0, 0.0, 1.0]], dtype=torch.float64)


def _reference(x: Tensor, weight: Tensor, bias: Tensor | None, filters: Tensor) -> Tensor:
    """The direct sum, by PyTorch."""
    _check(x, weight, bias, filters)
    return _direct(x, weight, bias)


def _direct(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.conv2d(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype), padding=1)


def _check(x: Tensor, weight: Tensor, bias: Tensor | None, filters: Tensor) -> None:
    if x.dim() != 4 or not x.is_floating_point():
        raise UsageError(f"x is {x.dtype} of shape {tuple(x.shape)}; expected a floating-point [B, C, H, W]")
    if weight.dim() != 4 or tuple(weight.shape[1:]) != (x.shape[1], 3, 3):
        raise UsageError(f"weight has shape {tuple(weight.shape)}; expected [K, {x.shape[1]}, 3, 3]")
    channels = weight.shape[0]
    if bias is not None and tuple(bias.shape) != (channels,):
        raise UsageError(f"bias has shape {tuple(bias.shape)}; expected ({channels},)")
    padded = -(-channels // _LAST_BLOCK) * _LAST_BLOCK
    size = 36 * x.shape[1] * padded
    if filters.dtype != torch.float32 or tuple(filters.shape) != (size,):
        raise UsageError(
            f"filters are {filters.dtype} of shape {tuple(filters.shape)}; "
            f"expected transformed(weight), float32 ({size},)"
        )
    for name, tensor in (("weight", weight), ("bias", bias), ("filters", filters)):
        if tensor is not None:
            check_real(name, tensor)
        if tensor is not None and tensor.device != x.device:
            raise UsageError(f"{name} is on {tensor.device} and x on {x.device}; move one to the other")


def _like(x: Tensor, channels: int) -> Tensor:
    """[B, channels, H, W], contiguous, or channels-last where x is that and not contiguous."""
    last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty(
        (x.shape[0], channels, *x.shape[2:]), dtype=x.dtype, device=x.device, memory_format=layout
    )


def _fake(x: Tensor, weight: Tensor, bias: Tensor | None, filters: Tensor) -> Tensor:
    _check(x, weight, bias, filters)
    return _like(x, weight.shape[0])


_CONV3X3 = Operator(
    "conv3x3",
    "Tensor x, Tensor weight, Tensor? bias, Tensor filters",
    "Tensor",
    _reference,
    _check,
    _fake,
    gradients=("x", "weight", "bias"),
    why_left=why_left,
)


def _keep(ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: Any, output: Tensor) -> None:
    x, weight, bias, _ = inputs
    ctx.save_for_backward(x, weight)
    ctx.bias = None if bias is None else bias.dtype


def _gradient(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    wanted = [
        ctx.needs_input_grad[0],
        ctx.needs_input_grad[1],
        ctx.bias is not None and ctx.needs_input_grad[2],
    ]
    sizes = None if ctx.bias is None else [weight.shape[0]]
    ones, zeros = [1, 1], [0, 0]
    dx, dweight, dbias = torch.ops.aten.convolution_backward(
        dy, x, weight.to(x.dtype), sizes, ones, ones, ones, False, zeros, 1, wanted
    )
    return (
        dx,
        None if dweight is None else dweight.to(weight.dtype),
        None if dbias is None else dbias.to(ctx.bias),
        None,
    )


torch.library.register_autograd("trilemma::conv3x3", _gradient, setup_context=_keep, lib=library)
