"""Layer normalisation and gated linear units for CUDA against their equations in float64, and their gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

EPSILON = {torch.float32: 2.0**-23, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
EPS = 1e-5
# Words of one element and of several, tokens shorter and longer than a block reads at once, several pieces.
SHAPES = [(2, 3, 32), (2, 5, 37), (1, 3, 1100), (2, 1100, 64)]
MAPS = [(), ("weight", "bias"), ("scale", "shift"), ("weight", "bias", "scale", "shift")]
NAMES = ("weight", "bias", "scale", "shift")


def normal(*size: int, seed: int) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def equation(x: Tensor, weight: Any, bias: Any, scale: Any, shift: Any) -> Tensor:
    y = F.layer_norm(x, x.shape[-1:], weight, bias, EPS)
    y = y if scale is None else y * (1 + scale[:, None])
    return y if shift is None else y + shift[:, None]


@pytest.mark.parametrize("dtype", EPSILON)
@pytest.mark.parametrize("shape", SHAPES)
def test_layer_norm(device: Any, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    for maps in MAPS:
        check_layer_norm(device, shape, dtype, maps)


def check_layer_norm(device: Any, shape: tuple[int, ...], dtype: torch.dtype, maps: tuple[str, ...]) -> None:
    x, dy = (normal(*shape, seed=1) * 2 + 0.5).to(dtype), normal(*shape, seed=2).to(dtype)
    embedding = normal(shape[0], 2 * shape[-1], seed=3).to(dtype)
    values = [normal(shape[-1], seed=4), normal(shape[-1], seed=5).to(dtype), *embedding.chunk(2, 1)]
    chosen = [value if name in maps else None for name, value in zip(NAMES, values, strict=True)]
    y, mean, rstd = device("layer_norm", x, *chosen, EPS)
    found = device("layer_norm_backward", dy, x, mean, rstd, *chosen, [True] * 5)

    exact = [None if tensor is None else tensor.double().requires_grad_() for tensor in (x, *chosen)]
    expected = equation(*exact)  # type: ignore[arg-type]
    expected.backward(dy.double())
    assert ((y.double() - expected).abs() <= 2.0**-17 + EPSILON[dtype] * expected.abs()).all()
    for index, (gradient, of) in enumerate(zip(found, exact, strict=True)):
        if of is None:
            assert gradient.numel() == 0
            continue
        terms = 8 if index == 0 else shape[1] * (shape[0] if index < 3 else 1)
        bound = 2.0**-16 * terms + 2 * EPSILON[gradient.dtype] * of.grad.abs()
        assert ((gradient.double() - of.grad).abs() <= bound).all(), index


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("dtype", EPSILON)
@pytest.mark.parametrize("channels", [16, 37])
def test_glu(device: Any, channels: int, dtype: torch.dtype, silu: bool) -> None:
    x, dy = (3 * normal(3, 5, 2 * channels, seed=1)).to(dtype), normal(3, 5, channels, seed=2).to(dtype)
    exact = x.double().requires_grad_()
    value, gate = exact.chunk(2, -1)
    expected = value * (F.silu(gate) if silu else gate * torch.special.ndtr(gate))
    expected.backward(dy.double())
    assert exact.grad is not None
    for found, wanted in (
        (device("glu", x, silu), expected.detach()),
        (device("glu_backward", dy, x, silu), exact.grad),
    ):
        assert ((found.double() - wanted).abs() <= 2.0**-18 + EPSILON[dtype] * wanted.abs()).all()


def test_the_order_of_threads_changes_no_bit(device: Any) -> None:
    x, maps = normal(2, 300, 64, seed=1), [normal(64, seed=2), None, normal(2, 64, seed=3), None]
    results = []
    for order in range(3):
        device.set_order(order)
        y, mean, rstd = device("layer_norm", x, *maps, EPS)
        results.append((y, mean, rstd, *device("layer_norm_backward", y, x, mean, rstd, *maps, [True] * 5)))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
