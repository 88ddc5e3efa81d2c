"""Attention for CUDA against its equation in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

EPSILON = {torch.float32: 2.0**-23, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
LAYOUTS = ["packed tokens", "packed map", "contiguous", "mixed"]
# Whole tiles, a part of one, more than one; a query, a key; as many of one as of the other, and not.
TOKENS = [(64, 64), (16, 16), (5, 77), (1, 130), (100, 1), (33, 70)]


def normal(generator: torch.Generator, dtype: torch.dtype, *size: int) -> Tensor:
    return torch.randn(size, generator=generator, dtype=torch.float64).to(dtype)


def heads(
    layout: str, batch: int, count: int, tokens: int, depth: int, dtype: torch.dtype, seed: int
) -> Tensor:
    """A tensor [B, H, L, D] as it lies in a projection of three times its channels."""
    generator = torch.Generator().manual_seed(seed)
    if layout == "packed tokens":
        packed = normal(generator, dtype, batch, tokens, 3, count, depth)
        return packed.permute(2, 0, 3, 1, 4)[seed % 3]
    if layout == "packed map":
        return normal(generator, dtype, batch, 3, count, depth, tokens).mT[:, seed % 3]
    return normal(generator, dtype, batch, count, tokens, depth)


def arguments(
    layout: str, tokens: tuple[int, int], depth: int, dtype: torch.dtype, batch: int = 2, count: int = 2
) -> tuple[Tensor, Tensor, Tensor]:
    layouts = ("packed map", "packed tokens", "packed map") if layout == "mixed" else (layout,) * 3
    lengths = (tokens[0], tokens[1], tokens[1])
    q, k, v = (
        heads(lies, batch, count, length, depth, dtype, seed)
        for seed, (lies, length) in enumerate(zip(layouts, lengths, strict=True))
    )
    return q, k, v


def exact(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    scores = q.double() @ k.double().mT * scale
    return scores.softmax(-1) @ v.double(), scores.logsumexp(-1)


def check(device: Any, q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> None:
    """Scores are off by the relative error of the powers; half types round probabilities once, and the result once."""
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    out, logsumexp = device("attention", q, k, v, scale)
    expected, expected_logsumexp = exact(q, k, v, factor)
    single = EPSILON[torch.float32]
    largest = (q.double().abs() @ k.double().abs().mT).max().item() * abs(factor)
    off = 4 * single * (1 + largest)
    rounding = 8 * single if q.dtype == torch.float32 else 1.5 * EPSILON[q.dtype]
    assert out.dtype == q.dtype
    assert ((out.double() - expected).abs() <= (rounding + 2 * off) * v.double().abs().max()).all()
    assert logsumexp.dtype == torch.float32
    bound = off + 4 * single * (1 + expected_logsumexp.abs())
    assert ((logsumexp.double() - expected_logsumexp).abs() <= bound).all()
    assert out.transpose(1, 2).is_contiguous() if q.stride(3) == 1 else out.mT.is_contiguous()


@pytest.mark.parametrize("dtype", EPSILON)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("tokens", TOKENS)
def test_equation(device: Any, tokens: tuple[int, int], layout: str, dtype: torch.dtype) -> None:
    check(device, *arguments(layout, tokens, 32, dtype))


@pytest.mark.parametrize("dtype", EPSILON)
@pytest.mark.parametrize("layout", ["packed tokens", "packed map"])
@pytest.mark.parametrize("depth", [8, 16, 24, 40, 64, 72, 80, 128])
def test_depths(device: Any, depth: int, layout: str, dtype: torch.dtype) -> None:
    check(device, *arguments(layout, (40, 72), depth, dtype, batch=1))


@pytest.mark.parametrize("dtype", EPSILON)
def test_scales(device: Any, dtype: torch.dtype) -> None:
    q, k, v = arguments("packed tokens", (20, 90), 16, dtype)
    for scale in (0.3, -0.5, 0.0, 20.0):
        check(device, q, k, v, scale)


@pytest.mark.parametrize("dtype", EPSILON)
def test_a_largest_score_in_any_tile(device: Any, dtype: torch.dtype) -> None:
    """The softmax is corrected when a later tile holds what counts."""
    for place in (0, 70, 149):
        q, k, v = arguments("packed tokens", (4, 150), 16, dtype, batch=1, count=1)
        k[:, :, place] = 4 * q[:, :, 0]
        check(device, q, k, v, 1.0)


@pytest.mark.parametrize("dtype", EPSILON)
def test_misaligned_and_expanded(device: Any, dtype: torch.dtype) -> None:
    if device.name == "cuda":
        pytest.skip("a copy to the device is aligned")
    generator = torch.Generator().manual_seed(0)
    memory = normal(generator, dtype, 1 + 2 * 3 * 20 * 16)
    q = memory[1:].view(2, 20, 3, 16).transpose(1, 2)
    k = memory[1:961].view(1, 3, 20, 16).expand(2, 3, 20, 16)
    check(device, q, k, k)


@pytest.mark.parametrize("dtype", EPSILON)
@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_what_is_not_finite_goes_where_the_equation_lets_it(
    device: Any, value: float, which: int, dtype: torch.dtype
) -> None:
    inputs = list(arguments("packed tokens", (40, 70), 16, dtype, batch=1))
    inputs[0] = inputs[0].abs()
    inputs[which][0, 0, 3, 5] = value
    out, _ = device("attention", *inputs, None)
    expected = torch.nn.functional.scaled_dot_product_attention(*(x.float() for x in inputs)).to(dtype)
    assert torch.equal(out.isnan(), expected.isnan())
    finite = expected.isfinite()
    largest = inputs[2][inputs[2].isfinite()].abs().max().item()
    assert ((out - expected)[finite].abs() <= largest * (4 * EPSILON[dtype] + 1e-5)).all()
    assert torch.equal(out[~finite].nan_to_num(), expected[~finite].nan_to_num())


@pytest.mark.parametrize("dtype", EPSILON)
def test_a_row_of_minus_infinity_is_zero(device: Any, dtype: torch.dtype) -> None:
    q, k, v = arguments("packed tokens", (20, 70), 16, dtype, batch=1)
    out, logsumexp = device("attention", torch.ones_like(q), torch.full_like(k, -math.inf), v, None)
    assert not out.any()
    assert not logsumexp.any()


@pytest.mark.parametrize("dtype", EPSILON)
def test_the_order_of_threads_changes_no_bit(device: Any, dtype: torch.dtype) -> None:
    inputs = arguments("packed map", (70, 90), 24, dtype, batch=1)
    results = []
    for order in range(3):
        device.set_order(order)
        results.append(device("attention", *inputs, None))
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"depth": 12}, "head dimension"),
        ({"tokens": (4, 0)}, "no keys"),
        ({"dtype": torch.float64}, "float32, bfloat16 or float16"),
    ],
)
def test_what_the_kernel_cannot_take_is_named(device: Any, change: dict[str, Any], reason: str) -> None:
    q, k, v = arguments(
        **{"layout": "contiguous", "tokens": (4, 4), "depth": 8, "dtype": torch.float32, **change}
    )
    with pytest.raises(RuntimeError, match=reason):
        device("attention", q, k, v, None)


def test_without_a_measurement_pytorch_is_taken(device: Any) -> None:
    """Of the emulator there is none; a GPU's may be recorded."""
    x = torch.zeros(1, 1, 16, 8)
    there = x.cuda() if device.name == "cuda" else x
    why = device.operators.attention_why_not_native(there, there, there, None)
    assert (
        device.name == "cuda" or why == "it was not measured on this GPU, where PyTorch's attention is taken"
    )
