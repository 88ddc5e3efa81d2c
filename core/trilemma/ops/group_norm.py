"""Group normalisation with its affine maps, activation and residual in one operator."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from trilemma.errors import UsageError
from trilemma.ops import choice
from trilemma.ops.operator import (
    Operator,
    check_device,
    check_like,
    compute_dtype,
    is_transformed,
    library,
    requested_backend,
)

_PARAMETERS: Final = ("weight", "bias", "scale", "shift")


def group_norm_act(
    x: Tensor,
    groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    residual: Tensor | None = None,
    eps: float = 1e-5,
    silu: bool = False,
    out: Tensor | None = None,
) -> Tensor:
    """Computes group normalisation, with the modulation of AdaGN, SiLU and a residual where they are given.

        x̂ = (x − mean)/√(var + eps),    u = (x̂ weight + bias)·(1 + scale) + shift,    y = act(u) + residual

    Mean and variance are those of a group of channels of a sample. Gradients reach every tensor, and once more
    through the reference where they are asked for (a gradient penalty); `out` has none. Where PyTorch was measured to
    be faster (`trilemma.ops.choice`) its own operators are called one after the other; where its gradient was, they
    are for every call that a gradient is asked of.

    Args:
        x: [B, C, ...]; half types are computed in float32. Contiguous and channels-last x run natively; y keeps the
            memory format.
        groups: divides C.
        weight, bias: [C], of x's dtype or float32.
        scale, shift: [B, C], of x's dtype or float32.
        residual: [B, C, ...], like x.
        eps: is added to the variance.
        silu: whether act is SiLU, u σ(u), or nothing.
        out: receives y; it may be x or residual.

    Raises:
        UsageError: where the arguments do not fit together, or a gradient is asked for with `out`.

    References:
        Wu, He, Group Normalization, arXiv:1803.08494; the modulation: Dhariwal, Nichol, arXiv:2105.05233.
    """
    if out is None and why_left(x, groups, weight, bias, scale, shift, residual):
        return _one_after_the_other(x, groups, weight, bias, scale, shift, residual, eps, silu)
    if out is None:
        y: Tensor = _GROUP_NORM_ACT(x, groups, weight, bias, scale, shift, residual, eps, silu)[0]
        return y
    _GROUP_NORM_ACT_OUT(out, x, groups, weight, bias, scale, shift, residual, eps, silu)
    return out


def why_left(x: Tensor, groups: int, *tensors: Any) -> str:
    """Returns why a call is left to PyTorch's own operators; "" where it is not.

    Args:
        x, groups, tensors: as those of `group_norm_act`; what is no tensor is passed over.
    """
    if not (choice.chooses("group_norm_act") or choice.chooses("group_norm_act_backward")):
        return ""
    op = "group_norm_act"
    if torch.is_grad_enabled():
        for tensor in (x, *tensors):
            if isinstance(tensor, Tensor) and tensor.requires_grad:
                op = "group_norm_act_backward"
                break
    return _why_left(op, x)


def _why_left_backward(dy: Tensor, x: Tensor, *_: object) -> str:
    """As `why_left` for the operator that computes the gradient."""
    return _why_left("group_norm_act_backward", x)


def _why_left(op: str, x: Tensor) -> str:
    if not choice.chooses(op) or torch.compiler.is_compiling() or not x.is_cpu or x.dim() < 2:
        return ""
    samples, channels, *rest = x.shape
    elements, channels = math.prod(rest), samples * channels
    if not elements * channels:
        return ""
    layout = 0 if x.is_contiguous() else 1
    why = choice.why_left(op, x.dtype, layout, elements * elements, channels * channels)
    # Reading the environment takes as long as all before, and most calls need not.
    return why if why and requested_backend() == "auto" else ""


def _one_after_the_other(
    x: Tensor,
    groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    residual: Tensor | None,
    eps: float,
    silu: bool,
) -> Tensor:
    """`group_norm_act` by PyTorch's own operators, which refuse most of what does not fit together themselves."""
    given = (x, groups, weight, bias, scale, shift, residual, eps, silu)
    for tensor in (weight, bias, scale, shift):
        if tensor is not None and tensor.dtype not in (x.dtype, torch.float32):
            _check(*given)
    if residual is not None and (residual.dtype != x.dtype or residual.shape != x.shape):
        _check(*given)
    try:
        return _composed(*given)
    except RuntimeError:
        _check(*given)
        raise


def _composed(
    x: Tensor,
    groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    residual: Tensor | None,
    eps: float,
    silu: bool,
) -> Tensor:
    weight, bias = (tensor if tensor is None else tensor.to(x.dtype) for tensor in (weight, bias))
    y = torch.group_norm(x, groups, weight, bias, eps)
    beyond = [1] * (x.dim() - 2)
    if scale is not None:
        y = y * (1 + scale.to(x.dtype).reshape(*x.shape[:2], *beyond))
    if shift is not None:
        y = y + shift.to(x.dtype).reshape(*x.shape[:2], *beyond)
    if silu:
        y = functional.silu(y, inplace=not y.requires_grad)
    if residual is not None:
        y = y + residual
    return y if y.stride() == x.stride() else _like(y, x)


def _reference(
    x: Tensor,
    groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    residual: Tensor | None,
    eps: float,
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """`group_norm_act` in PyTorch, and the mean and rstd of each group [B, groups], in the dtype of the arithmetic."""
    _check(x, groups, weight, bias, scale, shift, residual, eps, silu)
    grouped = _grouped(x, groups)
    mean = grouped.mean(2)
    centred = grouped - mean[..., None]
    # Rounding of the mean leaves a rest.
    rest = centred.mean(2)
    centred = centred - rest[..., None]
    rstd = (centred.square().mean(2) + eps).rsqrt()
    slope, offset = _affine(x, weight, bias, scale, shift)
    u = _ungrouped(centred * rstd[..., None], x) * slope + offset
    y = torch.nn.functional.silu(u) if silu else u
    if residual is not None:
        y = y + residual
    return _like(y, x), mean + rest, rstd


def _reference_out(out: Tensor, x: Tensor, groups: int, *arguments: Any) -> tuple[Tensor, Tensor]:
    """As `_reference`, into `out`."""
    _check_out(out, x, groups, *arguments)
    y, mean, rstd = _reference(x, groups, *arguments)
    out.copy_(y)
    return mean, rstd


def _reference_backward(
    dy: Tensor,
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    silu: bool,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x, weight, bias, scale and shift; empty where not wanted."""
    _check_backward(dy, x, mean, rstd, groups, weight, bias, scale, shift, silu, wanted)
    compute = compute_dtype(x.dtype)
    centred = _grouped(x, groups) - mean[..., None]
    # This removes what the rounding of the mean left.
    centred = centred - centred.mean(2, keepdim=True)
    normal = _ungrouped(centred * rstd[..., None], x)
    slope, offset = _affine(x, weight, bias, scale, shift)
    du = dy.to(compute)
    if silu:
        u = normal * slope + offset
        sigmoid = u.sigmoid()
        du = du * (sigmoid * (1 + u * (1 - sigmoid)))

    dnormal = _grouped(du * slope, groups)
    hat = _grouped(normal, groups)
    dx = (dnormal - dnormal.mean(2, keepdim=True) - hat * (dnormal * hat).mean(2, keepdim=True)) * rstd[
        ..., None
    ]
    over = tuple(range(2, x.dim()))
    # Shapes [B, C].
    p, q = (part.sum(over) if over else part for part in (du, du * normal))
    factor = 1 if scale is None else 1 + scale.to(compute)
    results: list[Callable[[], Tensor]] = [
        lambda: _like(_ungrouped(dx, x), x),
        lambda: (factor * q).sum(0),
        lambda: (factor * p).sum(0),
        lambda: (q if weight is None else q * weight) + (0 if bias is None else p * bias),
        lambda: p,
    ]
    made = []
    for make, want, tensor in zip(results, wanted, (x, weight, bias, scale, shift), strict=True):
        made.append(x.new_empty(0) if tensor is None or not want else make().to(tensor.dtype))
    dx_, dweight, dbias, dscale, dshift = made
    return dx_, dweight, dbias, dscale, dshift


def _grouped(x: Tensor, groups: int) -> Tensor:
    """[B, C, ...] as [B, groups, the elements of a group]."""
    elements = x[0, : x.shape[1] // groups].numel() if len(x) else 0
    return x.to(compute_dtype(x.dtype)).reshape(len(x), groups, elements)


def _ungrouped(grouped: Tensor, x: Tensor) -> Tensor:
    return grouped.reshape(x.shape)


def _affine(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, scale: Tensor | None, shift: Tensor | None
) -> Any:
    """Slope and offset of u = slope x̂ + offset, to be broadcast against x."""
    compute, beyond = compute_dtype(x.dtype), [1] * (x.dim() - 2)
    one = torch.ones((), dtype=compute, device=x.device)
    slope = one if weight is None else weight.to(compute).view(1, -1, *beyond)
    offset = 0 * one if bias is None else bias.to(compute).view(1, -1, *beyond)
    if scale is not None:
        factor = 1 + scale.to(compute).reshape(*x.shape[:2], *beyond)
        slope, offset = slope * factor, offset * factor
    if shift is not None:
        offset = offset + shift.to(compute).reshape(*x.shape[:2], *beyond)
    return slope, offset


def _like(result: Tensor, x: Tensor) -> Tensor:
    """In the dtype and the memory format of x."""
    if is_transformed(result, x):
        return result.to(x.dtype)
    return torch.empty_like(x).copy_(result)


def _check(
    x: Tensor,
    groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    residual: Tensor | None,
    eps: float,
    silu: bool,
) -> None:
    if x.dim() < 2 or not x.is_floating_point():
        raise UsageError(f"x is {x.dtype} of shape {tuple(x.shape)}; expected a floating-point [B, C, ...]")
    if groups < 1 or x.shape[1] % groups:
        raise UsageError(f"groups={groups} does not divide the {x.shape[1]} channels; give a divisor")
    if residual is not None:
        check_like("residual", residual, x)
    for name, tensor in zip(_PARAMETERS, (weight, bias, scale, shift), strict=True):
        if tensor is None:
            continue
        shape = tuple(x.shape[1:2] if name in ("weight", "bias") else x.shape[:2])
        if tuple(tensor.shape) != shape or tensor.dtype not in (x.dtype, torch.float32):
            kind = "float32" if x.dtype == torch.float32 else f"{x.dtype} or float32"
            raise UsageError(
                f"{name} is {tensor.dtype} of shape {tuple(tensor.shape)}; expected {kind} of shape {shape}"
            )
        check_device(name, tensor, x)


def _check_out(out: Tensor, x: Tensor, groups: int, *arguments: Any) -> None:
    _check(x, groups, *arguments)
    check_like("out", out, x)


def _check_backward(
    dy: Tensor,
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    silu: bool,
    wanted: Sequence[bool],
) -> None:
    _check(x, groups, weight, bias, scale, shift, None, 0.0, silu)
    check_like("dy", dy, x)
    for name, tensor in (("mean", mean), ("rstd", rstd)):
        if tuple(tensor.shape) != (len(x), groups) or not tensor.is_floating_point():
            raise UsageError(
                f"{name} is {tensor.dtype} of shape {tuple(tensor.shape)}; expected floating-point {(len(x), groups)}"
            )
        check_device(name, tensor, x)
    if len(wanted) != 5:
        raise UsageError(f"wanted has {len(wanted)} entries; expected 5, of x, weight, bias, scale and shift")


def _statistics(x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    shape, compute = (x.shape[0], groups), compute_dtype(x.dtype)
    return x.new_empty(shape, dtype=compute), x.new_empty(shape, dtype=compute)


def _fake(x: Tensor, groups: int, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), *_statistics(x, groups)


def _fake_out(out: Tensor, x: Tensor, groups: int, *arguments: Any) -> tuple[Tensor, Tensor]:
    return _statistics(x, groups)


def _fake_backward(
    dy: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, groups: int, *arguments: Any
) -> tuple[Tensor, ...]:
    *parameters, _, wanted = arguments
    return tuple(
        torch.empty_like(
            tensor, memory_format=torch.preserve_format if tensor is x else torch.contiguous_format
        )
        if want and tensor is not None
        else x.new_empty(0)
        for tensor, want in zip((x, *parameters), wanted, strict=True)
    )


def _save(ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: Any, output: tuple[Tensor, ...]) -> None:
    x, ctx.groups, weight, bias, scale, shift, _, ctx.eps, ctx.silu = inputs
    _, mean, rstd = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(mean, rstd)
    ctx.save_for_backward(x, mean, rstd, weight, bias, scale, shift)


def _gradient(ctx: Any, dy: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    if dy is None:
        return (None,) * 9
    x, mean, rstd, *parameters = ctx.saved_tensors
    needs = ctx.needs_input_grad
    wanted = [needs[0], *needs[2:6]]
    if torch.is_grad_enabled():
        found = _differentiable(dy, (x, *parameters), wanted, ctx.groups, ctx.eps, ctx.silu)
    else:
        found = _BACKWARD(dy, x, mean, rstd, ctx.groups, *parameters, ctx.silu, wanted)
    dx, *others = (gradient if want else None for gradient, want in zip(found, wanted, strict=True))
    return dx, None, *others, dy if needs[6] else None, None, None


def _differentiable(
    dy: Tensor, tensors: Sequence[Tensor | None], wanted: Sequence[bool], groups: int, eps: float, silu: bool
) -> list[Tensor | None]:
    """The gradients of the reference, with a graph of their own."""
    x, weight, bias, scale, shift = tensors
    assert x is not None
    y = _reference(x, groups, weight, bias, scale, shift, None, eps, silu)[0]
    chosen = [tensor for tensor, want in zip(tensors, wanted, strict=True) if want and tensor is not None]
    if not chosen:
        return [None for _ in wanted]
    found = iter(torch.autograd.grad(y, chosen, dy, create_graph=True, allow_unused=True))
    return [next(found) if want else None for want in wanted]


_ARGUMENTS: Final = (
    "Tensor x, int groups, Tensor? weight, Tensor? bias, Tensor? scale, Tensor? shift, Tensor? residual, "
    "float eps, bool silu"
)
_GROUP_NORM_ACT = Operator(
    "group_norm_act",
    _ARGUMENTS,
    "(Tensor y, Tensor mean, Tensor rstd)",
    _reference,
    _check,
    _fake,
    gradients=("x", *_PARAMETERS, "residual"),
    why_left=why_left,
)
_GROUP_NORM_ACT_OUT = Operator(
    "group_norm_act_out",
    f"Tensor(a!) out, {_ARGUMENTS}",
    "(Tensor mean, Tensor rstd)",
    _reference_out,
    _check_out,
    _fake_out,
)
_BACKWARD = Operator(
    "group_norm_act_backward",
    "Tensor dy, Tensor x, Tensor mean, Tensor rstd, int groups, Tensor? weight, Tensor? bias, Tensor? scale, "
    "Tensor? shift, bool silu, bool[] wanted",
    "(Tensor dx, Tensor dweight, Tensor dbias, Tensor dscale, Tensor dshift)",
    _reference_backward,
    _check_backward,
    _fake_backward,
    why_left=_why_left_backward,
)
torch.library.register_autograd("trilemma::group_norm_act", _gradient, setup_context=_save, lib=library)
