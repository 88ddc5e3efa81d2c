"""Layer normalisation against its equation in float64, forward and backward, on whichever backend runs here."""

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
from trilemma.ops import OPERATORS, explain, layer_norm

EPSILON = {torch.float32: 2.0**-23, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-10, torch.float64: 2.0**-52}
NAMES = ("x", "weight", "bias", "scale", "shift")
NATIVE = explain("layer_norm").backend == "native"
Problem = dict[str, Tensor | None]


def problem(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    maps: tuple[str, ...] = NAMES[1:],
    map_dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Problem:
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    shapes = {name: (shape[0], shape[-1]) if name in ("scale", "shift") else shape[-1:] for name in NAMES[1:]}
    made: Problem = {"x": (2 * normal(*shape) + 1).to(dtype)}
    for name in NAMES[1:]:
        made[name] = normal(*shapes[name]).to(map_dtype) if name in maps else None
    return made


def call(x: Problem, eps: float = 1e-5) -> Tensor:
    data, weight, bias, scale, shift = (x[name] for name in NAMES)
    assert data is not None
    return layer_norm(data, weight, bias, scale=scale, shift=shift, eps=eps)


def exact(x: Problem, eps: float = 1e-5) -> Tensor:
    """The equation in float64, by other means than the reference's."""
    data, weight, bias, scale, shift = (None if x[name] is None else x[name].double() for name in NAMES)
    y = F.layer_norm(data, data.shape[-1:], weight, bias, eps)
    tokens = [1] * (data.dim() - 2)
    if scale is not None:
        y = y * (1 + scale.reshape(len(data), *tokens, data.shape[-1]))
    return y if shift is None else y + shift.reshape(len(data), *tokens, data.shape[-1])


def runs_on(x: Problem) -> str:
    return explain("layer_norm", *(x[name] for name in NAMES), 1e-5).backend


def leaves(x: Problem, dtype: torch.dtype | None = None) -> Any:
    return {
        name: None if tensor is None else tensor.detach().to(dtype or tensor.dtype).requires_grad_()
        for name, tensor in x.items()
    }


def compare(x: Problem, eps: float, dy: Tensor) -> None:
    """Value and gradients, within the rounding of the storage and some units of float32 of the magnitudes summed."""
    data = x["x"]
    assert data is not None
    rough, precise = leaves(x), leaves(x, torch.float64)
    y = call(rough, eps)
    assert y.dtype == data.dtype
    assert y.shape == data.shape
    assert y.is_contiguous()
    y.backward(dy)
    if not data.numel():
        assert not any(tensor.grad.any() for tensor in rough.values() if tensor is not None)
        return
    expected = exact(precise, eps)
    expected.backward(dy.double())
    compute = EPSILON[torch.float64 if data.dtype == torch.float64 else torch.float32]
    largest = {
        name: 0.0 if tensor is None else float(tensor.detach().abs().max())
        for name, tensor in precise.items()
    }
    slope = (1 + largest["weight"]) * (1 + largest["scale"])
    centred = data.double() - data.double().mean(-1, keepdim=True)
    rstd = (centred.square().mean(-1, keepdim=True) + eps).rsqrt()
    hat = float((centred * rstd).abs().max())
    size = slope * (1 + hat + largest["bias"]) + largest["shift"]
    assert ((y - expected).abs() <= EPSILON[data.dtype] * expected.abs() + 16 * compute * (1 + size)).all()

    summed = float(dy.double().abs().max()) * slope * (1 + hat) ** 2 * (2 + size)
    over = math.prod(data.shape[1:-1])
    for name in NAMES:
        if rough[name] is None:
            continue
        terms = {"x": 8 * float(rstd.max()), "scale": 8.0 + over, "shift": 8.0 + over}
        bound = 4 * compute * summed * terms.get(name, 8.0 + over * len(data))
        found, wanted = rough[name].grad, precise[name].grad
        assert found.dtype == rough[name].dtype
        assert ((found - wanted).abs() <= EPSILON[found.dtype] * wanted.abs() + bound).all(), name


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    dtype = draw(st.sampled_from(list(EPSILON)))
    return {
        "shape": (
            draw(st.integers(0, 3)),
            *draw(st.lists(st.sampled_from([1, 2, 3, 17]), max_size=2)),
            draw(st.sampled_from([4, 5, 16, 33, 64, 100, 257])),
        ),
        "dtype": dtype,
        "map_dtype": draw(st.sampled_from([dtype, torch.float32])),
        "maps": tuple(name for name in NAMES[1:] if draw(st.booleans())),
        "eps": draw(st.sampled_from([1e-6, 1e-2])),
        "layout": draw(st.sampled_from(["contiguous", "offset", "strided"])),
        "gradient": draw(st.sampled_from(["contiguous", "strided", "expanded"])),
        "seed": draw(st.integers(0, 2**30)),
    }


def laid_out(x: Tensor, layout: str) -> Tensor:
    """The values of x in another memory layout."""
    # Not aligned to a register.
    if layout == "offset":
        return torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape)
    if layout == "strided":
        return torch.stack([x, x], -1)[..., 0]
    return x.new_full((), 0.5).expand(x.shape) if layout == "expanded" else x


def check_case(case: dict[str, Any]) -> None:
    x = problem(*(case[name] for name in ("shape", "dtype", "maps", "map_dtype", "seed")))
    generator = torch.Generator().manual_seed(case["seed"])
    dy = laid_out(torch.randn(case["shape"], generator=generator).to(case["dtype"]), case["gradient"])
    x["x"] = laid_out(x["x"], case["layout"])
    compare(x, case["eps"], dy)
    if x["x"].is_contiguous() and case["dtype"] != torch.float64 and NATIVE:
        assert runs_on(x) == "native"


@given(case=cases())
@settings(deadline=None, max_examples=100)
def test_equation_and_gradients(case: dict[str, Any]) -> None:
    check_case(case)


@pytest.mark.slow
@given(case=cases())
@settings(deadline=None, max_examples=2000)
def test_two_thousand_more(case: dict[str, Any]) -> None:
    check_case(case)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shape", [(1, 700, 96), (5, 130, 200)])
def test_work_that_threads_share(shape: tuple[int, ...], threads: int) -> None:
    """More pieces than threads, and pieces of several tokens; the threads change no bit."""
    x = problem(shape, torch.float32)
    dy = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        compare(x, 1e-5, dy)
        shared = call(x)
        torch.set_num_threads(1)
        if NATIVE:
            assert torch.equal(call(x), shared)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("mean", [1e4, -3e5])
def test_large_mean(mean: float) -> None:
    """The rounding of a float32 mean, 5e-4 at 1e4, shows neither in the values nor in the gradients."""
    x = problem((2, 9, 130), torch.float32)
    x["x"] = x["x"] / 2 + mean
    compare(x, 1e-5, torch.randn(2, 9, 130, generator=torch.Generator().manual_seed(2)))


def test_constant_tokens() -> None:
    x = problem((2, 3, 40), torch.float32, ("weight", "bias"))
    x["x"].fill_(12345.678)
    torch.testing.assert_close(call(x), x["bias"].expand(2, 3, 40), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_spoils_its_token_alone(value: float, dtype: torch.dtype) -> None:
    x = problem((2, 5, 70), dtype)
    x["x"][1, 2, 33] = value
    y = call(x)
    assert not y[1, 2].isfinite().any()
    assert y.isfinite().sum() == y.numel() - 70
    (dx,) = torch.autograd.grad(call(leaf := leaves(x)).sum(), leaf["x"])
    assert not dx[1, 2].isfinite().any()
    assert dx.isfinite().sum() == dx.numel() - 70


def test_maps_of_any_stride() -> None:
    """As `chunk` leaves scale and shift, and `expand` a weight."""
    x = problem((3, 7, 40), torch.float32)
    x["scale"], x["shift"] = torch.randn(3, 80, generator=torch.Generator().manual_seed(0)).chunk(2, 1)
    x["weight"] = torch.full((1,), 1.5).expand(40)
    compare(x, 1e-5, torch.ones(3, 7, 40))
    if NATIVE:
        assert runs_on(x) == "native"


def test_gradcheck() -> None:
    x = leaves(problem((2, 3, 5), torch.float64, map_dtype=torch.float64))

    def function(*tensors: Tensor) -> Tensor:
        return call(dict(zip(NAMES, tensors, strict=True)), 1e-2)

    assert torch.autograd.gradcheck(function, tuple(x.values()))
    assert torch.autograd.gradgradcheck(function, tuple(x.values()))


def test_only_wanted_gradients_are_made() -> None:
    x = problem((2, 4, 8), torch.float32)
    statistics = torch.zeros(2, 4), torch.ones(2, 4)
    maps = (x["weight"], None, None, x["shift"])
    wanted = [False, True, True, False, True]
    made = torch.ops.trilemma.layer_norm_backward.default(x["x"], x["x"], *statistics, *maps, wanted)
    assert [tuple(tensor.shape) for tensor in made] == [(0,), (8,), (0,), (0,), (2, 8)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(6)}, "expected a floating-point"),
        ({"x": torch.zeros(2, 3, 6, dtype=torch.int64)}, "expected a floating-point"),
        ({"weight": torch.zeros(5)}, "weight is torch.float32 of shape"),
        ({"bias": torch.zeros(6, dtype=torch.float64)}, "bias is torch.float64"),
        ({"scale": torch.zeros(2, 1, 6)}, "scale is"),
        ({"shift": torch.zeros(3, 6)}, "shift is"),
        ({"weight": torch.zeros(6, device="meta")}, "weight is on meta"),
    ],
)
def test_arguments_that_do_not_fit(change: dict[str, Tensor], message: str) -> None:
    x = problem((2, 3, 6), torch.float32) | change
    with pytest.raises(UsageError, match=message) as caught:
        OPERATORS["layer_norm"].check(*(x[name] for name in NAMES), 1e-5)
    assert "\n" not in str(caught.value)
    if "meta" not in message:
        with pytest.raises(UsageError, match=message):
            call(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_torch_checks_the_operators(dtype: torch.dtype) -> None:
    x = leaves(problem((2, 3, 6), dtype))
    arguments = (*(x[name] for name in NAMES), 1e-5)
    torch.library.opcheck(torch.ops.trilemma.layer_norm.default, arguments, {"backend": "auto"})
    plain = [tensor.detach() if isinstance(tensor, Tensor) else tensor for tensor in arguments]
    y, mean, rstd = torch.ops.trilemma.layer_norm.default(*plain)
    torch.library.opcheck(
        torch.ops.trilemma.layer_norm_backward.default,
        (y, plain[0], mean, rstd, *plain[1:5], [True] * 5),
        {"backend": "auto"},
        test_utils=("test_schema", "test_faketensor"),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sizes", [(2, 5, 3), (3, 7, 70), (2, 3, 640)])
def test_instruction_sets_agree(sizes: tuple[int, int, int], dtype: torch.dtype) -> None:
    _C = pytest.importorskip(
        "trilemma._C", reason="the native libraries were not built", exc_type=ImportError
    )
    x = problem(sizes, dtype)
    dy = torch.randn(sizes, generator=torch.Generator().manual_seed(1)).to(dtype)
    precise = leaves(x, torch.float64)
    expected = exact(precise, 1e-2)
    expected.backward(dy.double())
    wanted = [expected.detach(), *(precise[name].grad for name in NAMES)]
    for isa in _C.cpu_isas():
        mean, rstd = torch.empty(sizes[:2]), torch.empty(sizes[:2])
        y, dx = torch.empty_like(x["x"]), torch.empty_like(x["x"])
        gradients = [torch.empty_like(x[name]) for name in NAMES[1:]]
        shared: dict[str, Any] = {
            "isa": isa,
            "dtype": str(dtype).removeprefix("torch."),
            "sizes": sizes,
            "eps": 1e-2,
            "x": x["x"].data_ptr(),
            "mean": mean.data_ptr(),
            "rstd": rstd.data_ptr(),
            "maps": [x[name].data_ptr() for name in NAMES[1:]],
        }
        _C.layer_norm(**shared, y=y.data_ptr())
        _C.layer_norm(
            **shared,
            dy=dy.data_ptr(),
            dx=dx.data_ptr(),
            gradients=[tensor.data_ptr() for tensor in gradients],
            piece=2,
        )
        for found, expected in zip([y, dx, *gradients], wanted, strict=True):
            bound = EPSILON[found.dtype] * expected.abs() + 1e-5 * (1 + expected.abs().max())
            assert ((found - expected).abs() <= bound).all(), isa
