"""The noised state and the training target in one pass."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from trilemma.errors import UsageError
from trilemma.numerics.normal import PERTURB, reference_normal
from trilemma.ops.operator import Operator, check_real, compute_dtype, library, signed


def perturb(
    x0: Tensor,
    coefficients: Tensor,
    *,
    seed: int = 0,
    step: int = 0,
    indices: Tensor | None = None,
    noise: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns the noised state z and the training target, both linear in the data and one noise.

        z = α x₀ + σ ξ,    target = a x₀ + b ξ

    (a, b) is the parameterization as `trilemma.numerics.conversion.functional` gives it: (0, 1) for ε, (−σ, α) for v.

    Args:
        x0: [B, ...]; half types are computed in float32. Gradients reach it, the coefficients and `noise`.
        coefficients: float64 [B, 4] on the device of x0: α, σ, a, b of each sample.
        seed, step: of the noise made here, in a stream of its own.
        indices: int64 [B], the samples that the noise made here is for; see `trilemma.engine.noise.keyed_normal`.
        noise: ξ [B, ...], in place of noise made here.

    Returns:
        z and target, both like x0.

    Raises:
        UsageError: where the arguments do not fit together.
    """
    z, target = _PERTURB(x0, coefficients, signed(seed), step, indices, noise)
    return z, target


def _reference(
    x0: Tensor, coefficients: Tensor, seed: int, step: int, indices: Tensor | None, noise: Tensor | None
) -> tuple[Tensor, Tensor]:
    """`perturb` in PyTorch."""
    _check(x0, coefficients, seed, step, indices, noise)
    compute = compute_dtype(x0.dtype)
    if noise is None:
        assert indices is not None
        noise = reference_normal(seed, indices, step, math.prod(x0.shape[1:]), PERTURB).view(x0.shape)
    data, xi = x0.to(compute), noise.to(compute)
    alpha, sigma, a, b = coefficients.to(compute).view(-1, 4, *[1] * (x0.dim() - 1)).unbind(1)
    z, target = alpha * data + sigma * xi, a * data + b * xi
    return z.to(x0.dtype), target.to(x0.dtype)


def _check(
    x0: Tensor, coefficients: Tensor, seed: int, step: int, indices: Tensor | None, noise: Tensor | None
) -> None:
    if not x0.dim() or not x0.is_floating_point():
        raise UsageError(f"x0 is {x0.dtype} of shape {tuple(x0.shape)}; expected a floating-point batch")
    batch = x0.shape[0]
    if tuple(coefficients.shape) != (batch, 4) or coefficients.dtype != torch.float64:
        raise UsageError(
            f"coefficients are {coefficients.dtype} of shape {tuple(coefficients.shape)}; "
            f"expected float64 {(batch, 4)}"
        )
    if noise is None and indices is None:
        raise UsageError("perturb adds noise; give indices to make it from, or noise")
    if noise is not None and noise.shape != x0.shape:
        raise UsageError(f"noise has shape {tuple(noise.shape)}; expected {tuple(x0.shape)} as x0")
    if indices is not None and (tuple(indices.shape) != (batch,) or indices.dtype != torch.int64):
        raise UsageError(
            f"indices is {indices.dtype} of shape {tuple(indices.shape)}; expected int64 {(batch,)}"
        )
    if noise is not None:
        check_real("noise", noise)
    for name, tensor in (("coefficients", coefficients), ("indices", indices), ("noise", noise)):
        if tensor is not None and tensor.device != x0.device:
            raise UsageError(f"{name} is on {tensor.device}, x0 on {x0.device}; move one to the other")


def _fake(x0: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x0), torch.empty_like(x0)


def _save(ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: Any, output: Any) -> None:
    ctx.save_for_backward(inputs[1])


def _gradient(ctx: Any, dz: Tensor, dtarget: Tensor) -> tuple[Tensor | None, ...]:
    (coefficients,) = ctx.saved_tensors
    alpha, _, a, _ = coefficients.to(dz.dtype).view(-1, 4, *[1] * (dz.dim() - 1)).unbind(1)
    return alpha * dz + a * dtarget, None, None, None, None, None


_PERTURB = Operator(
    "perturb",
    "Tensor x0, Tensor coefficients, int seed, int step, Tensor? indices, Tensor? noise",
    "(Tensor, Tensor)",
    _reference,
    _check,
    _fake,
    gradients=("x0",),
)
torch.library.register_autograd("trilemma::perturb", _gradient, setup_context=_save, lib=library)
