"""Dynamic thresholding against sorting."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trilemma.errors import UsageError
from trilemma.ops import dynamic_threshold, explain, native

EPSILON = {torch.float32: 2.0**-23, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11, torch.float64: 2.0**-52}
SHAPES = st.lists(st.sampled_from([1, 2, 3, 17, 64, 300]), max_size=2).map(tuple)
# Quantiles on a rank, between ranks, and at the ends.
QUANTILES = st.sampled_from([0.0, 0.25, 0.5, 0.9, 0.995, 1.0]) | st.floats(0, 1)


def agrees(
    batch: int, shape: tuple[int, ...], dtype: torch.dtype, quantile: float, spread: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = (spread * torch.randn(batch, *shape, generator=generator, dtype=torch.float64)).to(dtype)
    result = dynamic_threshold(x, quantile)
    assert result.dtype == dtype
    if not x.numel():
        return
    rows = x.double().view(batch, -1)
    bound = torch.quantile(rows.abs(), quantile, dim=1).clamp_min(1).view(-1, *[1] * len(shape))
    expected = x.double().clamp(-bound, bound) / bound
    compute = EPSILON[torch.float64 if dtype == torch.float64 else torch.float32]
    tolerance = 4 * compute + EPSILON[dtype] * expected.abs() + (2.0**-25 if dtype == torch.float16 else 0)
    assert ((result.double() - expected).abs() <= tolerance).all()


@given(
    batch=st.integers(0, 4),
    shape=SHAPES,
    dtype=st.sampled_from(list(EPSILON)),
    quantile=QUANTILES,
    spread=st.sampled_from([0.1, 1.0, 30.0]),
    seed=st.integers(0, 2**30),
)
@settings(deadline=None)
def test_equation(
    batch: int, shape: tuple[int, ...], dtype: torch.dtype, quantile: float, spread: float, seed: int
) -> None:
    agrees(batch, shape, dtype, quantile, spread, seed)


@pytest.mark.slow
@given(
    batch=st.integers(0, 4),
    shape=SHAPES,
    dtype=st.sampled_from(list(EPSILON)),
    quantile=QUANTILES,
    spread=st.sampled_from([0.1, 1.0, 30.0]),
    seed=st.integers(0, 2**30),
)
@settings(deadline=None, max_examples=2000)
def test_two_thousand_more(
    batch: int, shape: tuple[int, ...], dtype: torch.dtype, quantile: float, spread: float, seed: int
) -> None:
    agrees(batch, shape, dtype, quantile, spread, seed)


def test_equal_magnitudes_and_both_signs() -> None:
    x = torch.tensor([[3.0, -3.0, 3.0, -3.0, 0.5], [0.0, 0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(
        dynamic_threshold(x, 0.7), torch.tensor([[1.0, -1.0, 1.0, -1.0, 0.5 / 3], [0.0] * 5])
    )


def test_samples_within_the_range_are_left() -> None:
    x = torch.rand(3, 100) * 2 - 1
    assert torch.equal(dynamic_threshold(x), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_what_is_not_finite_stays_in_its_sample(dtype: torch.dtype) -> None:
    x = torch.full((3, 200), 4.0, dtype=dtype)
    x[1, 7], x[2, 7] = math.nan, math.inf
    result = dynamic_threshold(x, 0.5)
    assert (result[0] == 1).all()
    assert result[1].isnan().all()
    assert (result[2] == 1).all()  # half of the magnitudes are 4: infinity is clipped


def test_in_place() -> None:
    x = 3 * torch.randn(4, 333)
    expected = dynamic_threshold(x.clone())
    assert dynamic_threshold(x, out=x) is x
    assert torch.equal(x, expected)


def test_strided_tensors_run_on_the_reference() -> None:
    x = 3 * torch.randn(2, 6, 5)
    strided = x.transpose(1, 2).contiguous().transpose(1, 2)
    torch.testing.assert_close(dynamic_threshold(strided), dynamic_threshold(x))
    if not native.load():
        out = torch.empty_like(x)
        why = explain("dynamic_threshold", out, strided, 0.5, 1.0).passed_over["native"]
        assert "not contiguous" in why


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quantile": 1.5}, "from 0 to 1"),
        ({"quantile": math.nan}, "from 0 to 1"),
        ({"floor": 0.0}, "positive"),
        ({"out": torch.zeros(2, 4)}, "out is"),
        ({"x": torch.zeros(2, 3, dtype=torch.int32)}, "floating-point"),
        ({"x": torch.zeros(2, 3, requires_grad=True)}, "no gradient"),
    ],
)
def test_arguments_that_do_not_fit(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        dynamic_threshold(**{"x": torch.zeros(2, 3), **change})


def test_mixed_devices_are_refused_by_name() -> None:
    with pytest.raises(UsageError, match="on meta"):
        explain("dynamic_threshold", torch.zeros(2, 3, device="meta"), torch.zeros(2, 3), 0.5, 1.0)


def test_torch_checks_the_operator() -> None:
    torch.library.opcheck(
        torch.ops.trilemma.dynamic_threshold.default,
        (torch.empty(2, 30), torch.randn(2, 30), 0.9, 1.0),
        {"backend": "auto"},
        test_utils=("test_schema", "test_faketensor"),
    )
