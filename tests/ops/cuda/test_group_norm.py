"""Group normalisation for CUDA against its equation, and its gradients against autograd, both in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import group_norm, silu

EPSILON = {torch.float32: 2.0**-23, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
EPS = 1e-5
# (shape, groups): one block a group, several; a group cut in parts; words that straddle channels; one element a group
CASES = [
    ((2, 8, 4, 4), 4),
    ((2, 6, 5, 7), 3),
    ((1, 32, 24, 24), 1),
    ((1, 4, 67, 67), 2),
    ((3, 16, 2), 4),
    ((2, 64, 3, 3), 2),
    ((2, 5), 5),
]


def equation(
    x: Tensor,
    groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    residual: Tensor | None,
    activate: bool,
) -> Tensor:
    y = group_norm(x, groups, weight, bias, EPS)
    ones = [1] * (x.dim() - 2)
    if scale is not None:
        y = y * (1 + scale.view(*scale.shape, *ones))
    if shift is not None:
        y = y + shift.view(*shift.shape, *ones)
    y = silu(y) if activate else y
    return y if residual is None else y + residual


def arguments(
    shape: tuple[int, ...], dtype: torch.dtype, last: bool, maps: str, residual: bool, mean: float
) -> tuple[Tensor, list[Tensor | None], Tensor | None]:
    """x, its maps and a residual; the maps named in `maps`, scale and shift being halves of one embedding."""
    generator = torch.Generator().manual_seed(len(shape))

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    def laid(tensor: Tensor) -> Tensor:
        return tensor.to(dtype).contiguous(
            memory_format=torch.channels_last if last else torch.contiguous_format
        )

    x = laid(normal(*shape) * 2 + mean)
    embedding = (normal(shape[0], 2 * shape[1]) / 2).to(dtype)
    vectors: dict[str, Tensor] = {
        "weight": normal(shape[1]),
        "bias": normal(shape[1]).to(dtype),
        "scale": embedding[:, : shape[1]],
        "shift": embedding[:, shape[1] :],
    }
    chosen = [vectors[name] if name[:2] in maps else None for name in ("weight", "bias", "scale", "shift")]
    return x, chosen, laid(normal(*shape)) if residual else None


VARIANTS = [("", False, False), ("webi", True, False), ("webiscsh", True, True), ("sh", False, True)]


def skip_impossible(shape: tuple[int, ...], last: bool) -> None:
    if last and len(shape) != 4:
        pytest.skip("channels-last is of four dimensions")


@pytest.mark.parametrize("dtype", EPSILON)
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("shape", "groups"), CASES)
def test_forward(device: Any, shape: tuple[int, ...], groups: int, last: bool, dtype: torch.dtype) -> None:
    skip_impossible(shape, last)
    for maps, activate, residual in VARIANTS:
        check_forward(device, shape, groups, last, maps, activate, residual, dtype)


def check_forward(
    device: Any,
    shape: tuple[int, ...],
    groups: int,
    last: bool,
    maps: str,
    activate: bool,
    residual: bool,
    dtype: torch.dtype,
) -> None:
    x, vectors, added = arguments(shape, dtype, last, maps, residual, mean=0.5)
    y, mean, rstd = device("group_norm_act", x, groups, *vectors, added, EPS, activate)
    exact = [tensor if tensor is None else tensor.double() for tensor in (x, *vectors, added)]
    expected = equation(exact[0], groups, *exact[1:], activate)
    grouped = x.double().reshape(shape[0], groups, -1)
    assert y.stride() == x.stride() or shape[2:] == (2,)
    torch.testing.assert_close(mean.double(), grouped.mean(2), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        rstd.double(), (grouped.var(2, correction=0) + EPS).rsqrt(), rtol=1e-5, atol=1e-5
    )
    bound = 2.0**-17 + EPSILON[dtype] * expected.abs()
    assert ((y.double() - expected).abs() <= bound * (1 if shape[-1] > 1 else 4)).all()


@pytest.mark.parametrize(("shape", "groups"), CASES[:4])
def test_a_mean_far_from_zero_costs_no_digits(device: Any, shape: tuple[int, ...], groups: int) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 1000
    y, _, _ = device("group_norm_act", x, groups, None, None, None, None, None, EPS, False)
    expected = group_norm(x.double(), groups, eps=EPS)
    assert (y.double() - expected).abs().max() < 1000 * 2.0**-21


@pytest.mark.parametrize("dtype", EPSILON)
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("shape", "groups"), CASES[:6])
def test_gradients(device: Any, shape: tuple[int, ...], groups: int, last: bool, dtype: torch.dtype) -> None:
    skip_impossible(shape, last)
    for maps, activate, residual in VARIANTS:
        check_gradients(device, shape, groups, last, maps, activate, residual, dtype)


def check_gradients(
    device: Any,
    shape: tuple[int, ...],
    groups: int,
    last: bool,
    maps: str,
    activate: bool,
    residual: bool,
    dtype: torch.dtype,
) -> None:
    x, vectors, _ = arguments(shape, dtype, last, maps, residual, mean=0.5)
    dy = torch.randn(shape, generator=torch.Generator().manual_seed(9)).to(
        dtype
    )  # contiguous, also where x is not
    _, mean, rstd = device("group_norm_act", x, groups, *vectors, None, EPS, activate)
    found = device("group_norm_act_backward", dy, x, mean, rstd, groups, *vectors, activate, [True] * 5)
    exact = [tensor if tensor is None else tensor.double().requires_grad_() for tensor in (x, *vectors)]
    equation(exact[0], groups, *exact[1:], None, activate).backward(dy.double())
    positions = x[0, 0].numel()
    for index, (gradient, of) in enumerate(zip(found, exact, strict=True)):
        if of is None:
            assert gradient.numel() == 0
            continue
        assert of.grad is not None
        assert gradient.shape == of.shape
        terms = 1 if index == 0 else positions * (shape[0] if index < 3 else 1)
        bound = 2.0**-16 * terms + 2 * EPSILON[gradient.dtype] * of.grad.abs()
        assert ((gradient.double() - of.grad).abs() <= bound * (8 if index == 0 else 1)).all()


def test_only_wanted_gradients_are_made(device: Any) -> None:
    x, vectors, _ = arguments((2, 8, 4, 4), torch.float32, False, "webiscsh", False, 0.0)
    _, mean, rstd = device("group_norm_act", x, 4, *vectors, None, EPS, True)
    for wanted in range(5):
        flags = [index == wanted for index in range(5)]
        found = device("group_norm_act_backward", x, x, mean, rstd, 4, *vectors, True, flags)
        assert [gradient.numel() > 0 for gradient in found] == flags


@pytest.mark.parametrize("last", [False, True])
def test_the_order_of_threads_changes_no_bit(device: Any, last: bool) -> None:
    x, vectors, _ = arguments((1, 32, 24, 24), torch.float32, last, "webiscsh", False, 0.5)
    results = []
    for order in range(3):
        device.set_order(order)
        y, mean, rstd = device("group_norm_act", x, 1, *vectors, None, EPS, True)
        backward = device("group_norm_act_backward", y, x, mean, rstd, 1, *vectors, True, [True] * 5)
        results.append((y, mean, rstd, *backward))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
