"""Attention over the tokens of each head, from the packed projection as it lies."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from trilemma.errors import UsageError
from trilemma.ops import native
from trilemma.ops.operator import Operator, compute_dtype, is_transformed, library, requested_backend


def attention(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None, out: Tensor | None = None
) -> Tensor:
    """Computes scaled dot-product attention (1706.03762), without a mask.

    With s = scale the result is

        out_i = Σ_j p_ij v_j,    p_ij = exp(s ⟨q_i, k_j⟩) / Σ_j' exp(s ⟨q_i, k_j'⟩)

    The tensors may be views of a packed projection, as [B, 3·H·D, L] or [B, L, 3·H·D]: the native kernel reads them
    where they lie if their depth or their tokens are contiguous, and no permuted copy is needed. The memory of the
    result follows that of `q`: where the depth of `q` is contiguous it is stored as [B, L, H, D], where its tokens
    are, as [B, H, D, L]. Half types are computed in float32; with AVX512-BF16 and on tensor cores, probabilities are
    rounded to the half type before they multiply v, as in PyTorch. A row whose scores are all -inf gives zeros.

    On CUDA PyTorch's own attention is called, and lays out the result, where the native kernel was not measured to be
    faster on this GPU, and where a gradient is asked for.

    Args:
        q: [B, H, Lq, D].
        k: [B, H, Lk, D].
        v: [B, H, Lk, D].
        scale: of the scores; D^(-1/2) by default.
        out: [B, H, Lq, D], receives the result; not where a gradient is asked for.

    Returns:
        [B, H, Lq, D].

    Raises:
        UsageError: where the arguments do not fit together.
        TrilemmaError: where TRILEMMA_BACKEND=native cannot be kept.
    """
    needs_gradient = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    if out is not None and needs_gradient:
        raise UsageError(
            "attention has no gradient through out; call it under torch.no_grad(), or without out"
        )
    result: Tensor
    if q.device.type == "cuda" and _pytorch_is_taken(q, k, v, scale, needs_gradient):
        result = scaled_dot_product_attention(q, k, v, scale=scale)
    elif needs_gradient or torch.compiler.is_compiling() or is_transformed(q, k, v):
        result = _ATTENTION(q, k, v, scale)[0]
    else:
        # This skips the autograd layer, which costs as much as a small call.
        with torch._C._AutoDispatchBelowAutograd():
            result = _ATTENTION(q, k, v, scale)[0]
    if out is None:
        return result
    if out.shape != result.shape or out.dtype != result.dtype or out.device != result.device:
        raise UsageError(
            f"out is {out.dtype} of shape {tuple(out.shape)} on {out.device}; "
            f"expected {result.dtype} {tuple(result.shape)} on {result.device}"
        )
    return out.copy_(result)


def _pytorch_is_taken(q: Tensor, k: Tensor, v: Tensor, scale: float | None, needs_gradient: bool) -> bool:
    """Returns whether PyTorch's own attention runs for CUDA tensors, itself and its gradient: the reference, which must
    also give logsumexp, writes all scores out.
    """
    if requested_backend() != "auto" or q.shape[-1:] == (0,):
        return False
    _check(q, k, v, scale)
    if needs_gradient or torch.compiler.is_compiling() or native.load() or native.load_cuda():
        return True
    return bool(torch.ops.trilemma.attention_why_not_native(q, k, v, scale))


def _reference(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> tuple[Tensor, Tensor]:
    """The result and lse_i = log Σ_j exp(s ⟨q_i, k_j⟩): by PyTorch's fused kernel on the CPU, elsewhere by formula."""
    _check(q, k, v, scale)
    plain = q.device.type == "cpu" and q.dtype != torch.float64 and not is_transformed(q, k, v)
    if plain and q.numel() and k.numel():
        fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        depth_last = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
        out, lse = fused(*depth_last, scale=scale)
        return _stored_like(out, q), lse.contiguous()
    scores, v = _scores(q, k, scale), v.to(compute_dtype(v.dtype))
    nothing = (scores == -math.inf).all(-1)
    weights = scores.softmax(-1).masked_fill(nothing[..., None], 0)
    return _stored_like((weights @ v).to(q.dtype), q), scores.logsumexp(-1).masked_fill(nothing, 0)


def _reference_backward(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, logsumexp: Tensor, scale: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """dv = Pᵀ dout and, with dS = s P ∘ (dout vᵀ - (dout · out) 1ᵀ), dq = dS k and dk = dSᵀ q."""
    _check_backward(dout, q, k, v, out, logsumexp, scale)
    weights = (_scores(q, k, scale) - logsumexp[..., None]).exp()
    wide = compute_dtype(q.dtype)
    q_, k_, v_, out, dout = (x.to(wide) for x in (q, k, v, out, dout))
    dscores = (dout @ v_.mT).sub_((dout * out).sum(-1, keepdim=True)).mul_(weights).mul_(_scale(q, scale))
    return (
        _stored_like((dscores @ k_).to(q.dtype), q),
        _stored_like((dscores.mT @ q_).to(k.dtype), k),
        _stored_like((weights.mT @ dout).to(v.dtype), v),
    )


def _scale(q: Tensor, scale: float | None) -> float:
    return q.shape[-1] ** -0.5 if scale is None and q.shape[-1] else scale or 0.0


def _scores(q: Tensor, k: Tensor, scale: float | None) -> Tensor:
    wide = compute_dtype(q.dtype)
    return (q.to(wide) @ k.to(wide).mT).mul_(_scale(q, scale))


def _like(like: Tensor) -> Tensor:
    """An empty tensor of the same shape: [B, L, H, D] in memory, or [B, H, D, L] where only tokens are contiguous."""
    batch, heads, tokens, depth = like.shape
    if like.stride(3) != 1 and (like.stride(2) == 1 or tokens == 1):
        return like.new_empty(batch, heads, depth, tokens).transpose(2, 3)
    return like.new_empty(batch, tokens, heads, depth).transpose(1, 2)


def _stored_like(x: Tensor, like: Tensor) -> Tensor:
    if is_transformed(x, like):
        return x
    target = _like(like)
    return x if x.stride() == target.stride() else target.copy_(x)


def _fake(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> tuple[Tensor, Tensor]:
    _check(q, k, v, scale)
    return _like(q), q.new_empty(q.shape[:3], dtype=compute_dtype(q.dtype))


def _fake_backward(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, logsumexp: Tensor, scale: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    return _like(q), _like(k), _like(v)


def _check(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> None:
    """Raises UsageError where the arguments of `attention` do not fit together."""
    if q.dim() != 4 or not q.is_floating_point():
        raise UsageError(f"q is {q.dtype} of shape {tuple(q.shape)}; expected a floating-point [B, H, Lq, D]")
    tokens = k.shape[2] if k.dim() == 4 else "Lk"
    for name, x in (("k", k), ("v", v)):
        if x.dim() != 4 or x.shape != (*q.shape[:2], tokens, q.shape[3]):
            raise UsageError(
                f"{name} has shape {tuple(x.shape)}; expected [{q.shape[0]}, {q.shape[1]}, {tokens}, {q.shape[3]}]"
            )
        if x.dtype != q.dtype:
            raise UsageError(f"{name} is {x.dtype} and q is {q.dtype}; convert one to the other")
        if x.device != q.device:
            raise UsageError(f"{name} is on {x.device} and q is on {q.device}; move one to the other")


def _check_backward(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, logsumexp: Tensor, scale: float | None
) -> None:
    """Raises UsageError where the arguments of the gradient of `attention` do not fit together."""
    _check(q, k, v, scale)
    for name, x, shape in (
        ("dout", dout, q.shape),
        ("out", out, q.shape),
        ("logsumexp", logsumexp, q.shape[:3]),
    ):
        if x.shape != shape or x.device != q.device:
            raise UsageError(
                f"{name} has shape {tuple(x.shape)} on {x.device}; expected {tuple(shape)} on {q.device}"
            )


_ATTENTION = Operator(
    "attention",
    "Tensor q, Tensor k, Tensor v, float? scale",
    "(Tensor, Tensor)",
    _reference,
    _check,
    _fake,
    gradients=("q", "k", "v"),
)
_ATTENTION_BACKWARD = Operator(
    "attention_backward",
    "Tensor dout, Tensor q, Tensor k, Tensor v, Tensor out, Tensor logsumexp, float? scale",
    "(Tensor, Tensor, Tensor)",
    _reference_backward,
    _check_backward,
    _fake_backward,
    # The backward formula has no gradient of its own and refuses these.
    gradients=("dout", "q", "k", "v", "out", "logsumexp"),
)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor], **options: Any) -> None:
    q, k, v, ctx.scale = inputs[:4]
    ctx.save_for_backward(q, k, v, *output)
    ctx.mark_non_differentiable(output[1])


def _gradient(ctx: Any, dout: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, out, logsumexp = ctx.saved_tensors
    # The gradient is expanded, as after sum().
    if 1 not in dout.stride()[-2:]:
        dout = _like(out).copy_(dout)
    return (*_ATTENTION_BACKWARD(dout, q, k, v, out, logsumexp, ctx.scale), None)


def _no_gradient(ctx: Any, *grads: Tensor) -> None:
    raise UsageError("attention has no second derivative; use torch.softmax and matrix products for it")


torch.library.register_autograd("trilemma::attention", _gradient, setup_context=_keep, lib=library)
torch.library.register_autograd("trilemma::attention_backward", _no_gradient, lib=library)
