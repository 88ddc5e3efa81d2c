"""Layer normalisation and the modulation that follows it in one operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.ops.operator import (
    Operator,
    check_device,
    check_like,
    compute_dtype,
    is_transformed,
    library,
    why_sizes_left,
    why_tokens_left,
)

_MAPS: Final = ("weight", "bias", "scale", "shift")


def layer_norm(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Computes layer normalisation over the last dimension, with the modulation of adaLN where it is given.

        x̂ = (x − mean)/√(var + eps),    y = (x̂ weight + bias)·(1 + scale) + shift

    Mean and variance are those of the channels of a token. Gradients reach every tensor, and once more through the
    reference where they are asked for (a gradient penalty). Where PyTorch was measured to be faster
    (`trilemma.ops.choice`), its own operators are called one after the other.

    Args:
        x: [B, ..., C]; half types are computed in float32. Contiguous x runs natively.
        weight, bias: [C], of x's dtype or float32.
        scale, shift: [B, C], of x's dtype or float32.
        eps: is added to the variance.

    Raises:
        UsageError: where the arguments do not fit together.

    References:
        Ba, Kiros, Hinton, Layer Normalization, arXiv:1607.06450; the modulation: Peebles, Xie, arXiv:2212.09748.
    """
    if why_tokens_left("layer_norm", x, weight, bias, scale, shift):
        return _one_after_the_other(x, weight, bias, scale, shift, eps)
    y: Tensor = _LAYER_NORM(x, weight, bias, scale, shift, eps)[0]
    return y


def _one_after_the_other(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    eps: float,
) -> Tensor:
    """`layer_norm` by PyTorch's own operators."""
    _check(x, weight, bias, scale, shift, eps)
    weight, bias = (tensor if tensor is None else tensor.to(x.dtype) for tensor in (weight, bias))
    y = torch.layer_norm(x, [x.shape[-1]], weight, bias, eps)
    each = [len(x), *[1] * (x.dim() - 2), x.shape[-1]]
    if scale is not None:
        y = y * (1 + scale.to(x.dtype).reshape(each))
    if shift is not None:
        y = y + shift.to(x.dtype).reshape(each)
    return y if y.stride() == x.stride() else _like(y, x)


def _reference(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """`layer_norm` in PyTorch, and the mean and rstd of each token, in the dtype of the arithmetic."""
    _check(x, weight, bias, scale, shift, eps)
    data = x.to(compute_dtype(x.dtype))
    mean = data.mean(-1)
    centred = data - mean[..., None]
    # Rounding of the mean leaves a rest.
    rest = centred.mean(-1)
    centred = centred - rest[..., None]
    rstd = (centred.square().mean(-1) + eps).rsqrt()
    slope, offset = _affine(x, weight, bias, scale, shift)
    return _like(centred * rstd[..., None] * slope + offset, x), mean + rest, rstd


def _reference_backward(
    dy: Tensor,
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x, weight, bias, scale and shift; empty where not wanted."""
    _check_backward(dy, x, mean, rstd, weight, bias, scale, shift, wanted)
    compute = compute_dtype(x.dtype)
    centred = x.to(compute) - mean[..., None]
    # This removes what the rounding of the mean left.
    normal = (centred - centred.mean(-1, keepdim=True)) * rstd[..., None]
    slope, _ = _affine(x, weight, bias, scale, shift)
    d = dy.to(compute)
    g = d * slope
    over = tuple(range(1, x.dim() - 1))
    # Shapes [B, C].
    p, q = (part.sum(over) if over else part for part in (d, d * normal))
    factor = 1 if scale is None else 1 + scale.to(compute)
    results: list[Callable[[], Tensor]] = [
        lambda: _like(
            (g - g.mean(-1, keepdim=True) - normal * (g * normal).mean(-1, keepdim=True)) * rstd[..., None], x
        ),
        lambda: (factor * q).sum(0),
        lambda: (factor * p).sum(0),
        lambda: (q if weight is None else q * weight) + (0 if bias is None else p * bias),
        lambda: p,
    ]
    made = []
    for make, want, tensor in zip(results, wanted, (x, weight, bias, scale, shift), strict=True):
        made.append(x.new_empty(0) if tensor is None or not want else make().to(tensor.dtype))
    dx, dweight, dbias, dscale, dshift = made
    return dx, dweight, dbias, dscale, dshift


def _affine(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, scale: Tensor | None, shift: Tensor | None
) -> Any:
    """Slope and offset of y = slope x̂ + offset, to be broadcast against x."""
    compute, tokens = compute_dtype(x.dtype), [1] * (x.dim() - 2)
    one = torch.ones((), dtype=compute, device=x.device)
    slope = one if weight is None else weight.to(compute)
    offset = 0 * one if bias is None else bias.to(compute)
    if scale is not None:
        factor = 1 + scale.to(compute).reshape(len(x), *tokens, x.shape[-1])
        slope, offset = slope * factor, offset * factor
    if shift is not None:
        offset = offset + shift.to(compute).reshape(len(x), *tokens, x.shape[-1])
    return slope, offset


def _like(result: Tensor, x: Tensor) -> Tensor:
    """In the dtype of x, contiguous."""
    return result.to(x.dtype) if is_transformed(result, x) else result.to(x.dtype).contiguous()


def _check(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    eps: float,
) -> None:
    if x.dim() < 2 or not x.is_floating_point():
        raise UsageError(f"x is {x.dtype} of shape {tuple(x.shape)}; expected a floating-point [B, ..., C]")
    for name, tensor in zip(_MAPS, (weight, bias, scale, shift), strict=True):
        if tensor is None:
            continue
        shape = (*(x.shape[:1] if name in ("scale", "shift") else ()), x.shape[-1])
        if tuple(tensor.shape) != shape or tensor.dtype not in (x.dtype, torch.float32):
            kind = "float32" if x.dtype == torch.float32 else f"{x.dtype} or float32"
            raise UsageError(
                f"{name} is {tensor.dtype} of shape {tuple(tensor.shape)}; expected {kind} of shape {shape}"
            )
        check_device(name, tensor, x)


def _check_backward(
    dy: Tensor,
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    wanted: Sequence[bool],
) -> None:
    _check(x, weight, bias, scale, shift, 0.0)
    check_like("dy", dy, x)
    for name, tensor in (("mean", mean), ("rstd", rstd)):
        if tensor.shape != x.shape[:-1] or not tensor.is_floating_point():
            raise UsageError(
                f"{name} is {tensor.dtype} of shape {tuple(tensor.shape)}; "
                f"expected floating-point {tuple(x.shape[:-1])}"
            )
        check_device(name, tensor, x)
    if len(wanted) != 5:
        raise UsageError(f"wanted has {len(wanted)} entries; expected 5, of x, weight, bias, scale and shift")


def _fake(x: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    shape, compute = x.shape[:-1], compute_dtype(x.dtype)
    return x.new_empty(x.shape), x.new_empty(shape, dtype=compute), x.new_empty(shape, dtype=compute)


def _fake_backward(dy: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    *maps, wanted = arguments
    return tuple(
        tensor.new_empty(tensor.shape) if want and tensor is not None else x.new_empty(0)
        for tensor, want in zip((x, *maps), wanted, strict=True)
    )


def _save(ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: Any, output: tuple[Tensor, ...]) -> None:
    x, weight, bias, scale, shift, ctx.eps = inputs
    _, mean, rstd = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(mean, rstd)
    ctx.save_for_backward(x, mean, rstd, weight, bias, scale, shift)


def _gradient(ctx: Any, dy: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    if dy is None:
        return (None,) * 6
    x, mean, rstd, *maps = ctx.saved_tensors
    wanted = list(ctx.needs_input_grad[:5])
    if torch.is_grad_enabled():
        return *_differentiable(dy, (x, *maps), wanted, ctx.eps), None
    found = _BACKWARD(dy, x, mean, rstd, *maps, wanted)
    return *(gradient if want else None for gradient, want in zip(found, wanted, strict=True)), None


def _differentiable(
    dy: Tensor, tensors: Sequence[Tensor | None], wanted: Sequence[bool], eps: float
) -> list[Tensor | None]:
    """The gradients of the reference, with a graph of their own."""
    x, weight, bias, scale, shift = tensors
    assert x is not None
    y = _reference(x, weight, bias, scale, shift, eps)[0]
    chosen = [tensor for tensor, want in zip(tensors, wanted, strict=True) if want and tensor is not None]
    if not chosen:
        return [None for _ in wanted]
    found = iter(torch.autograd.grad(y, chosen, dy, create_graph=True, allow_unused=True))
    return [next(found) if want else None for want in wanted]


_ARGUMENTS: Final = "Tensor? weight, Tensor? bias, Tensor? scale, Tensor? shift"
_LAYER_NORM = Operator(
    "layer_norm",
    f"Tensor x, {_ARGUMENTS}, float eps",
    "(Tensor y, Tensor mean, Tensor rstd)",
    _reference,
    _check,
    _fake,
    gradients=("x", *_MAPS),
    why_left=lambda x, *given: why_tokens_left("layer_norm", x, *given[:4]),
)
_BACKWARD = Operator(
    "layer_norm_backward",
    f"Tensor dy, Tensor x, Tensor mean, Tensor rstd, {_ARGUMENTS}, bool[] wanted",
    "(Tensor dx, Tensor dweight, Tensor dbias, Tensor dscale, Tensor dshift)",
    _reference_backward,
    _check_backward,
    _fake_backward,
    why_left=lambda dy, x, *_: why_sizes_left("layer_norm_backward", x),
)
torch.library.register_autograd("trilemma::layer_norm", _gradient, setup_context=_save, lib=library)
