"""Gated linear units against their equation in float64, forward and backward, on whichever backend runs here."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from trilemma.errors import UsageError
from trilemma.ops import OPERATORS, explain, glu

EPSILON = {torch.float32: 2.0**-23, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-10, torch.float64: 2.0**-52}
NATIVE = explain("glu").backend == "native"


def exact(x: Tensor, silu: bool) -> Tensor:
    value, gate = x.double().chunk(2, -1)
    return value * gate * (gate.sigmoid() if silu else torch.special.ndtr(gate))


def compare(x: Tensor, silu: bool, dy: Tensor) -> None:
    """Value and gradient, within the rounding of the storage and a few units of float32 of the magnitudes."""
    rough, precise = x.detach().requires_grad_(), x.detach().double().requires_grad_()
    y, expected = glu(rough, silu=silu), exact(precise, silu)
    assert y.dtype == x.dtype
    assert y.shape == expected.shape
    assert y.is_contiguous()
    y.backward(dy)
    expected.backward(dy.double())
    compute = EPSILON[torch.float64 if x.dtype == torch.float64 else torch.float32]
    tiny = 2.0**-24 if x.dtype == torch.float16 else 1e-30
    value, gate = precise.detach().chunk(2, -1)
    # Φ and σ to 8 units; u is their factor.
    size = 8 * compute * gate.abs()
    assert ((y - expected).abs() <= EPSILON[x.dtype] * expected.abs() + size * value.abs() + tiny).all()
    both = dy.double().abs()
    bound = torch.cat([both * size, both * (8 * compute + 2 * size) * value.abs()], -1)
    wanted = precise.grad
    assert ((rough.grad - wanted).abs() <= EPSILON[x.dtype] * wanted.abs() + bound + tiny).all()


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "shape": (
            *draw(st.lists(st.sampled_from([0, 1, 2, 3, 9]), max_size=3)),
            2 * draw(st.sampled_from([1, 3, 16, 33, 64, 100])),
        ),
        "dtype": draw(st.sampled_from(list(EPSILON))),
        "layout": draw(st.sampled_from(["contiguous", "offset", "wide", "strided"])),
        "expanded": draw(st.booleans()),
        "silu": draw(st.booleans()),
        "seed": draw(st.integers(0, 2**30)),
    }


def laid_out(x: Tensor, layout: str) -> Tensor:
    """The values of x in another memory layout; "wide": rows that lie apart."""
    if layout == "offset":
        return torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape)
    if layout == "wide":
        return torch.cat([x, x[..., :1]], -1)[..., :-1]
    return torch.stack([x, x], -1)[..., 0] if layout == "strided" else x


def check_case(case: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(case["seed"])
    x = laid_out((3 * torch.randn(case["shape"], generator=generator)).to(case["dtype"]), case["layout"])
    half = (*case["shape"][:-1], case["shape"][-1] // 2)
    dy = torch.randn(half, generator=generator).to(case["dtype"])
    compare(x, case["silu"], dy.new_full((), 0.5).expand(half) if case["expanded"] else dy)
    if case["layout"] != "strided" and case["dtype"] != torch.float64 and NATIVE:
        assert explain("glu", x, case["silu"]).backend == "native"


@given(case=cases())
@settings(deadline=None, max_examples=100)
def test_equation_and_gradient(case: dict[str, Any]) -> None:
    check_case(case)


@pytest.mark.slow
@given(case=cases())
@settings(deadline=None, max_examples=2000)
def test_two_thousand_more(case: dict[str, Any]) -> None:
    check_case(case)


@pytest.mark.parametrize("silu", [False, True])
def test_gates_of_every_size(silu: bool) -> None:
    gate = torch.cat([torch.linspace(-30, 30, 20001), torch.tensor([-1e4, -80.0, 80.0, 1e4, 1e30, 0.0])])
    compare(torch.cat([torch.full_like(gate, 1.5), gate]), silu, torch.ones_like(gate))


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_not_finite_stays_so(dtype: torch.dtype, silu: bool) -> None:
    x = torch.ones(3, 80, dtype=dtype)
    x[0, 50], x[1, 77], x[2, 7] = math.nan, math.inf, math.nan
    y = glu(x, silu=silu)
    assert (~y.isfinite()).nonzero().tolist() == [[0, 10], [1, 37], [2, 7]]
    assert y[1, 37] == math.inf


@pytest.mark.parametrize("silu", [False, True])
def test_gradcheck(silu: bool) -> None:
    x = torch.randn(
        2, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True
    )
    assert torch.autograd.gradcheck(lambda x: glu(x, silu=silu), x)
    assert torch.autograd.gradgradcheck(lambda x: glu(x, silu=silu), x)


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_torch_checks_the_operators(dtype: torch.dtype, silu: bool) -> None:
    x = torch.randn(3, 12, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    torch.library.opcheck(torch.ops.trilemma.glu.default, (x, silu), {"backend": "auto"})
    torch.library.opcheck(
        torch.ops.trilemma.glu_backward.default,
        (x.detach()[:, :6].clone(), x.detach(), silu),
        {"backend": "auto"},
        test_utils=("test_schema", "test_faketensor"),
    )


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 5), "a value and its gate"),
        (torch.zeros(()), "a value and its gate"),
        (torch.zeros(2, 4, dtype=torch.int64), "expected a floating-point"),
    ],
)
def test_arguments_that_do_not_fit(x: Tensor, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        glu(x)
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="dy is"):
        OPERATORS["glu_backward"].check(torch.zeros(2, 3), torch.zeros(2, 4), True)


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels", [1, 37, 160])
def test_instruction_sets_agree(channels: int, dtype: torch.dtype, silu: bool) -> None:
    _C = pytest.importorskip(
        "trilemma._C", reason="the native libraries were not built", exc_type=ImportError
    )
    generator = torch.Generator().manual_seed(0)
    x = (2 * torch.randn(3, 2 * channels, generator=generator)).to(dtype)
    dy = torch.randn(3, channels, generator=generator).to(dtype)
    precise = x.double().requires_grad_()
    expected = exact(precise, silu)
    expected.backward(dy.double())
    for isa in _C.cpu_isas():
        out, dx = torch.empty_like(dy), torch.empty_like(x)
        named: dict[str, Any] = {"isa": isa, "dtype": str(dtype).removeprefix("torch.")}
        named |= {"rows": 3, "channels": channels, "silu": silu, "x": x.data_ptr()}
        _C.glu(**named, out=out.data_ptr())
        _C.glu(**named, dy=dy.data_ptr(), dx=dx.data_ptr())
        for found, wanted in ((out, expected.detach()), (dx, precise.grad)):
            assert ((found - wanted).abs() <= EPSILON[dtype] * wanted.abs() + 1e-5).all(), isa


def test_torch_computes_the_same() -> None:
    x = torch.randn(4, 40, generator=torch.Generator().manual_seed(3))
    value, gate = x.chunk(2, -1)
    torch.testing.assert_close(glu(x), value * F.gelu(gate), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(glu(x, silu=True), value * F.silu(gate), rtol=1e-5, atol=1e-5)
