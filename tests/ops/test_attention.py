"""Attention against its equation in float64, on whichever backend runs here."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import scaled_dot_product_attention

from trilemma.errors import TrilemmaError, UsageError
from trilemma.ops import attention, explain, native

needs_native = pytest.mark.skipif(bool(native.load()), reason=native.load())

EPSILON = {torch.float32: 2.0**-23, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11, torch.float64: 2.0**-52}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LAYOUTS = ("packed tokens", "packed map", "contiguous", "strided")


def tensors(layout: str, tokens: tuple[int, ...], shape: tuple[int, int, int], dtype: torch.dtype, seed: int):
    """Tensors [B, H, L, D], one a number of tokens; packed ones of equal tokens are views of one projection."""
    batch, heads, depth = shape
    generator = torch.Generator().manual_seed(seed)

    def normal(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator, dtype=torch.float64).to(dtype)

    if layout == "packed tokens" and len(set(tokens)) == 1:
        return normal(batch, tokens[0], len(tokens), heads, depth).permute(2, 0, 3, 1, 4).unbind()
    if layout == "packed map" and len(set(tokens)) == 1:
        return (
            normal(batch, len(tokens) * heads * depth, tokens[0])
            .unflatten(1, (-1, heads, depth))
            .mT.unbind(1)
        )
    if layout == "packed tokens":
        return [normal(batch, count, heads, depth).transpose(1, 2) for count in tokens]
    if layout == "packed map":
        return [normal(batch, heads, depth, count).mT for count in tokens]
    if layout == "contiguous":
        return [normal(batch, heads, count, depth) for count in tokens]
    return [normal(batch, heads, 2 * count, 2 * depth)[:, :, ::2, ::2] for count in tokens]


@dataclass
class Case:
    """The arguments of one call, made from a seed."""

    layout: str
    dtype: torch.dtype
    queries: int
    keys: int
    shape: tuple[int, int, int]
    scale: float | None
    magnitude: float
    seed: int

    def arguments(self) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = tensors(
            self.layout, (self.queries, self.keys, self.keys), self.shape, self.dtype, self.seed
        )
        q.mul_(self.magnitude)
        return q, k, v


@st.composite
def cases(draw: st.DrawFn, dtypes: tuple[torch.dtype, ...] = DTYPES) -> Case:
    tokens = st.sampled_from([1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 49, 64, 77, 127, 128, 129, 200, 260])
    queries = draw(tokens)
    return Case(
        layout=draw(st.sampled_from(LAYOUTS)),
        dtype=draw(st.sampled_from(dtypes)),
        queries=queries,
        keys=draw(st.just(queries) | tokens),
        shape=(
            draw(st.integers(1, 3)),
            draw(st.integers(1, 3)),
            draw(st.sampled_from([8, 16, 24, 32, 40, 64, 72, 128, 5])),
        ),
        scale=draw(st.sampled_from([None, 0.3, -0.5])),
        magnitude=draw(st.sampled_from([0.1, 1.0, 1.0, 30.0])),
        seed=draw(st.integers(0, 2**32)),
    )


def scale_of(case: Case) -> float:
    return case.shape[2] ** -0.5 if case.scale is None else case.scale


def exact(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    scores = q.double() @ k.double().mT * scale
    return scores.softmax(-1) @ v.double(), scores.logsumexp(-1)


def score_error(q: Tensor, k: Tensor, scale: float) -> float:
    """Of a score whose products are added in float32, by the largest sum of their magnitudes."""
    largest = (q.double().abs() @ k.double().abs().mT).max().item() * abs(scale)
    return 4 * EPSILON[torch.float32] * (1 + largest)


def check_forward(case: Case) -> None:
    """Scores are off by a relative error of the powers; half types round probabilities once, and the result once."""
    q, k, v = case.arguments()
    scale = scale_of(case)
    out, logsumexp = torch.ops.trilemma.attention(q, k, v, case.scale)
    expected, expected_logsumexp = exact(q, k, v, scale)
    off = score_error(q, k, scale)
    rounding = 8 * EPSILON[torch.float32] if case.dtype == torch.float32 else 2.1 * EPSILON[case.dtype]
    bound = (rounding + 2 * off) * v.double().abs().max()
    assert ((out.double() - expected).abs() <= bound).all()
    summed = 0 if case.dtype == torch.float32 else EPSILON[case.dtype] / 8
    bound = off + summed + 4 * EPSILON[torch.float32] * (1 + expected_logsumexp.abs())
    assert ((logsumexp.double() - expected_logsumexp).abs() <= bound).all()
    assert logsumexp.dtype == torch.float32


def check_backward(case: Case) -> None:
    inputs = [x.detach().requires_grad_() for x in case.arguments()]
    scale = scale_of(case)
    out = attention(*inputs, scale=case.scale)
    dout = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(
        case.dtype
    )
    found = torch.autograd.grad(out, inputs, dout)
    exact_inputs = [x.detach().double().requires_grad_() for x in inputs]
    expected = torch.autograd.grad(exact(*exact_inputs, scale)[0], exact_inputs, dout.double())
    q, k, v = (x.detach().double() for x in inputs)
    # Its products are rounded before they cancel, and a rounded result moves delta by as much, relatively.
    dp = (dout.double().abs() @ v.mT.abs()).max()
    tokens = max(case.queries, case.keys)
    off = 8 * EPSILON[case.dtype] + 2.0**-10 * (case.dtype == torch.bfloat16) + 4 * score_error(q, k, scale)
    bounds = (
        dp * abs(scale) * k.abs().max(),
        dp * abs(scale) * q.abs().max() * case.queries,
        dout.double().abs().max() * case.queries,
    )
    for name, x, y, bound in zip("qkv", found, expected, bounds, strict=True):
        assert ((x.double() - y).abs() <= off * bound * (1 + tokens**0.5 / 16)).all(), name


@given(case=cases())
@settings(deadline=None, max_examples=150)
def test_equation(case: Case) -> None:
    check_forward(case)


@given(case=cases())
@settings(deadline=None, max_examples=100)
def test_gradient(case: Case) -> None:
    check_backward(case)


@pytest.mark.slow
@given(case=cases())
@settings(deadline=None, max_examples=2000, derandomize=True)
def test_two_thousand_more(case: Case) -> None:
    check_forward(case)
    check_backward(case)


@needs_native
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["packed tokens", "packed map", "contiguous"])
@pytest.mark.parametrize("tokens", [(64, 64), (1, 1), (49, 77), (300, 131)])
@pytest.mark.parametrize("depth", [8, 24, 64])
def test_native_everywhere(
    dtype: torch.dtype, layout: str, tokens: tuple[int, int], depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bounds where `auto` might choose PyTorch, forward and backward."""
    monkeypatch.setenv("TRILEMMA_BACKEND", "native")
    for magnitude in (1.0, 40.0):
        case = Case(layout, dtype, *tokens, (2, 3, depth), None, magnitude, 0)
        q, k, v = case.arguments()
        out = attention(q, k, v)
        expected, _ = exact(q, k, v, depth**-0.5)
        off = 2 * score_error(q, k, depth**-0.5)
        rounding = 8 * EPSILON[torch.float32] if dtype == torch.float32 else 1.5 * EPSILON[dtype]
        assert ((out.double() - expected).abs() <= (rounding + off) * v.double().abs().max()).all()
        check_backward(case)


@pytest.mark.parametrize(("layout", "order"), [("packed tokens", (0, 2, 1, 3)), ("packed map", (0, 1, 3, 2))])
def test_memory_follows_q(layout: str, order: tuple[int, ...]) -> None:
    q, k, v = tensors(layout, (20, 20, 20), (2, 3, 16), torch.float32, 0)
    for backend in ("auto", "reference"):
        out, _ = torch.ops.trilemma.attention(q, k, v, None, backend=backend)
        assert out.permute(order).is_contiguous(), backend


@needs_native
def test_reads_the_projection_where_it_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRILEMMA_BACKEND", "native")
    for layout in ("packed tokens", "packed map"):
        q, k, v = tensors(layout, (64, 64, 64), (2, 4, 32), torch.float32, 0)
        attention(q, k, v)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            attention(q, k, v)
        names = {event.name for event in profile.events() if event.name.startswith("aten::")}
        assert names <= {"aten::empty_strided"}, names


@needs_native
def test_misaligned_and_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRILEMMA_BACKEND", "native")
    for dtype in DTYPES:
        memory = torch.randn(1 + 2 * 3 * 20 * 16).to(dtype)
        q = memory[1:].view(2, 20, 3, 16).transpose(1, 2)
        k = memory[1:961].view(1, 3, 20, 16).expand(2, 3, 20, 16)
        out = attention(q, k, k)
        expected, _ = exact(q, k, k, 0.25)
        assert ((out.double() - expected).abs() <= 2 * EPSILON[dtype] * k.abs().max() + 1e-6).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_strided_and_expanded_gradients(layout: str) -> None:
    x = torch.randn(2, 20, 3, 4, 16, dtype=torch.float64)
    ones = {}
    for dtype in (torch.float32, torch.float64):
        packed = x.to(dtype, copy=True).requires_grad_()
        q, k, v = packed.permute(2, 0, 3, 1, 4).unbind()
        if layout == "packed map":
            q, k, v = (t.mT.contiguous().mT for t in (q, k, v))
        out = attention(q, k, v)
        (out.sum() + torch.cat([out, out * 2], -1)[..., ::2].square().sum()).backward()
        ones[dtype] = packed.grad
    torch.testing.assert_close(ones[torch.float32].double(), ones[torch.float64], rtol=1e-4, atol=1e-5)


def test_gradcheck() -> None:
    inputs = [torch.randn(2, 2, n, 3, dtype=torch.float64, requires_grad=True) for n in (4, 5, 5)]
    torch.autograd.gradcheck(lambda q, k, v: attention(q, k, v, scale=0.7), inputs)


def test_there_is_no_second_derivative() -> None:
    q = torch.randn(1, 1, 4, 8, requires_grad=True)
    (dq,) = torch.autograd.grad(attention(q, q, q).sum(), q, create_graph=True)
    with pytest.raises(UsageError, match="no second derivative"):
        dq.sum().backward()


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
@pytest.mark.parametrize(
    "sizes",
    [(0, 2, 4, 4, 8), (2, 0, 4, 4, 8), (2, 2, 0, 4, 8), (2, 2, 4, 0, 8), (2, 2, 0, 0, 8), (1, 1, 1, 1, 1)],
)
def test_empty_and_small(dtype: torch.dtype, sizes: tuple[int, ...]) -> None:
    """Without keys the result is zero, as PyTorch's is."""
    B, H, Lq, Lk, D = sizes
    inputs = [torch.randn(B, H, n, D).to(dtype).requires_grad_() for n in (Lq, Lk, Lk)]
    out = attention(*inputs)
    with torch.no_grad():  # torch 2.11 divides by zero where nothing is asked
        expected = (
            torch.zeros(B, H, Lq, D, dtype=dtype) if 0 in sizes else scaled_dot_product_attention(*inputs)
        )
    torch.testing.assert_close(out, expected)
    gradients = torch.autograd.grad(out.sum(), inputs)
    assert [x.shape for x in gradients] == [x.shape for x in inputs]


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("which", ["q", "k", "v"])
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_what_is_not_finite_goes_where_pytorch_lets_it(
    backend: str, dtype: torch.dtype, which: str, value: float
) -> None:
    if backend == "native" and native.load():
        pytest.skip(native.load())
    q, k, v = tensors("packed tokens", (40, 40, 40), (1, 2, 16), dtype, 0)
    q = q.abs()
    {"q": q, "k": k, "v": v}[which][0, 0, 3, 5] = value
    out, _ = torch.ops.trilemma.attention(q, k, v, None, backend=backend)
    # Where a score is inf PyTorch gives NaN in float32, as the native kernel always does, but zeros in half types.
    wide = torch.float32 if backend == "native" else dtype
    expected = scaled_dot_product_attention(*(x.to(wide) for x in (q, k, v))).to(dtype)
    assert torch.equal(out.isnan(), expected.isnan())
    torch.testing.assert_close(
        out, expected, rtol=4 * EPSILON[dtype] + 1e-5, atol=4 * EPSILON[dtype], equal_nan=True
    )


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_a_row_of_minus_infinity_is_zero(backend: str) -> None:
    if backend == "native" and native.load():
        pytest.skip(native.load())
    q, k, v = torch.ones(1, 1, 20, 8), torch.full((1, 1, 20, 8), -math.inf), torch.randn(1, 1, 20, 8)
    out, logsumexp = torch.ops.trilemma.attention(q, k, v, None, backend=backend)
    assert not out.any()
    assert not logsumexp.any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_large_logits_stay_finite(dtype: torch.dtype, backend: str) -> None:
    if backend == "native" and native.load():
        pytest.skip(native.load())
    q, k, v = tensors("packed map", (64, 64, 64), (1, 2, 16), torch.float64, 0)
    q = (q / q.norm(dim=-1, keepdim=True) * 100).to(dtype)
    k, v = (k / k.norm(dim=-1, keepdim=True) * 100).to(dtype), v.to(dtype)
    out, _ = torch.ops.trilemma.attention(q, k, v, 1.0, backend=backend)
    expected, _ = exact(q, k, v, 1.0)
    assert out.isfinite().all()
    bound = 2 * EPSILON[dtype] + 2 * score_error(q, k, 1.0)
    assert ((out.double() - expected).abs() <= bound * v.double().abs().max()).all()


def test_out() -> None:
    q, k, v = tensors("packed tokens", (20, 20, 20), (2, 3, 16), torch.float32, 0)
    out = torch.empty(2, 3, 20, 16)
    assert attention(q, k, v, out=out) is out
    assert torch.equal(out, attention(q, k, v))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.zeros(2, 4, 8)}, "q is .* expected a floating-point"),
        ({"q": torch.zeros(2, 2, 4, 8, dtype=torch.int64)}, "q is torch.int64"),
        ({"k": torch.zeros(2, 2, 4, 16)}, "k has shape"),
        ({"v": torch.zeros(2, 2, 5, 8)}, "v has shape"),
        ({"k": torch.zeros(2, 3, 4, 8)}, "k has shape"),
        ({"k": torch.zeros(2, 2, 4, 8, dtype=torch.float16)}, "k is torch.float16 and q is torch.float32"),
        ({"v": torch.zeros(2, 2, 4, 8, device="meta")}, "v is on meta and q is on cpu"),
        ({"out": torch.zeros(2, 2, 4, 4)}, "out is torch.float32 of shape"),
        ({"q": torch.zeros(2, 2, 4, 8, requires_grad=True), "out": torch.zeros(2, 2, 4, 8)}, "through out"),
    ],
)
def test_arguments_that_do_not_fit(change: dict[str, Any], message: str) -> None:
    arguments = {name: torch.zeros(2, 2, 4, 8) for name in "qkv"}
    with pytest.raises(UsageError, match=message) as caught:
        attention(**{**arguments, **change})
    assert "\n" not in str(caught.value)


@needs_native
def test_why_it_is_not_native(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(1, 1, 16, 8)
    assert "float32" in explain("attention", x.double(), x.double(), x.double(), None).passed_over["native"]
    odd = torch.zeros(1, 1, 16, 5)
    assert "head dimension" in explain("attention", odd, odd, odd, None).passed_over["native"]
    strided = torch.zeros(1, 1, 32, 16)[:, :, ::2, ::2]
    assert "contiguous" in explain("attention", x, strided, x, None).passed_over["native"]
    monkeypatch.setenv("TRILEMMA_BACKEND", "native")
    with pytest.raises(TrilemmaError, match=r"^TRILEMMA_BACKEND=native, but attention cannot"):
        attention(odd, odd, odd)


@pytest.mark.skipif(not native.load_cuda(), reason="the native library for CUDA chooses")
def test_on_cuda_pytorch_is_taken_where_the_native_kernel_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def taken(*inputs: Tensor, scale: float | None) -> Tensor:
        calls.append((inputs, scale))
        return scaled_dot_product_attention(*inputs, scale=scale)

    monkeypatch.setattr(sys.modules["trilemma.ops.attention"], "scaled_dot_product_attention", taken)
    with FakeTensorMode():
        x = torch.empty(2, 3, 16, 8, device="cuda")
        assert attention(x, x, x, scale=0.3).shape == x.shape
        assert calls == [((x, x, x), 0.3)]
        with pytest.raises(UsageError, match="k has shape"):
            attention(x, torch.empty(2, 2, 16, 8, device="cuda"), x)
        monkeypatch.setenv("TRILEMMA_BACKEND", "native")
        assert attention(x, x, x).shape == x.shape
    assert len(calls) == 1


def test_torch_checks_the_operators() -> None:
    for layout in ("packed tokens", "packed map", "strided"):
        inputs = [
            x.detach().requires_grad_() for x in tensors(layout, (7, 9, 9), (2, 2, 8), torch.float32, 0)
        ]
        torch.library.opcheck(torch.ops.trilemma.attention.default, (*inputs, None), {"backend": "auto"})
        with torch.no_grad():
            out, logsumexp = torch.ops.trilemma.attention(*inputs, None)
        torch.library.opcheck(
            torch.ops.trilemma.attention_backward.default,
            (out, *(x.detach() for x in inputs), out, logsumexp, None),
            {"backend": "auto"},
            test_utils=("test_schema", "test_faketensor"),
        )


def address(x: Tensor) -> list[int]:
    return [x.data_ptr(), *x.stride()]


@given(case=cases(), data=st.data())
@settings(deadline=None, max_examples=100)
def test_instruction_sets_agree(case: Case, data: st.DataObject) -> None:
    """To rounding: they fuse or not, and bfloat16 is multiplied in pairs or not. The cut of the work changes no bit."""
    _C = pytest.importorskip(
        "trilemma._C", reason="the native libraries were not built", exc_type=ImportError
    )
    if case.layout == "strided" or case.shape[2] == 5:
        return
    q, k, v = case.arguments()
    batch, heads, depth = case.shape
    expected, _ = exact(q, k, v, scale_of(case))
    off = 2 * score_error(q, k, scale_of(case))
    rounding = 8 * EPSILON[torch.float32] if case.dtype == torch.float32 else 2.1 * EPSILON[case.dtype]
    blocks = batch * heads * -(-case.queries // 32)
    cut = data.draw(st.integers(0, blocks))
    for isa in _C.cpu_isas():
        results = []
        for at in (0, cut):
            out, lse = torch.empty_like(q), torch.empty(batch, heads, case.queries)
            for begin, end in ((at, -1), (0, at)):
                _C.attention(
                    isa=isa,
                    dtype=str(case.dtype).removeprefix("torch."),
                    sizes=[batch, heads, case.queries, case.keys, depth],
                    scale=scale_of(case),
                    q=address(q),
                    k=address(k),
                    v=address(v),
                    out=address(out),
                    lse=lse.data_ptr(),
                    begin=begin,
                    end=end,
                )
            results.append(out)
        assert ((out.double() - expected).abs() <= (rounding + off) * v.double().abs().max()).all(), isa
        assert torch.equal(*results), isa
        gradients = [torch.empty_like(x) for x in (q, k, v)]
        _C.attention_backward(
            isa=isa,
            dtype=str(case.dtype).removeprefix("torch."),
            sizes=[batch, heads, case.queries, case.keys, depth],
            scale=scale_of(case),
            inputs=[address(x) for x in (q, k, v, out, q)],
            lse=lse.data_ptr(),
            gradients=[address(x) for x in gradients],
        )
        if isa == "baseline":
            first = gradients
        for x, y in zip(gradients, first, strict=True):
            # A result rounded another way moves delta, and with it dk by as much as the queries are large.
            tolerance = (32 * EPSILON[case.dtype] + 100 * off) * max(1.0, case.magnitude)
            assert ((x.double() - y.double()).abs() <= tolerance * (1 + y.double().abs().max())).all(), isa
