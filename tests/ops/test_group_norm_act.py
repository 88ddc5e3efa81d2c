"""Group normalisation against its equation in float64, forward and backward, on whichever backend runs here."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from trilemma.errors import UsageError
from trilemma.ops import OPERATORS, explain, group_norm_act, native

EPSILON = {torch.float32: 2.0**-23, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-10, torch.float64: 2.0**-52}
NAMES = ("x", "weight", "bias", "scale", "shift", "residual")
NATIVE = explain("group_norm_act").backend == "native"
LAYOUTS = ("contiguous", "channels last", "offset", "strided")


def laid_out(x: Tensor, layout: str) -> Tensor:
    """The values of x in another memory layout."""
    if layout == "channels last" and x.dim() > 2:
        return x.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == "offset":  # not aligned to a register
        return torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape)
    if layout == "strided":
        return torch.stack([x, x], -1)[..., 0]
    return x.contiguous()


def problem(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    layout: str = "contiguous",
    parameters: tuple[str, ...] = (),
    parameter_dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> dict[str, Tensor | None]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    shapes = {name: shape[:2] if name in ("scale", "shift") else shape[1:2] for name in NAMES[1:5]}
    made: dict[str, Tensor | None] = {"x": laid_out((2 * normal(*shape) + 1).to(dtype), layout)}
    for name in NAMES[1:]:
        if name not in parameters:
            made[name] = None
        elif name == "residual":
            made[name] = laid_out(normal(*shape).to(dtype), layout)
        else:
            made[name] = normal(*shapes[name]).to(parameter_dtype)
    return made


def exact(x: dict[str, Tensor | None], groups: int, eps: float, silu: bool) -> Tensor:
    """The equation in float64, by other means than the reference's."""
    data = x["x"]
    assert data is not None
    beyond = [1] * (data.dim() - 2)
    grouped = data.double().reshape(len(data), groups, math.prod(data.shape[1:]) // groups)
    mean = grouped.mean(2, keepdim=True)
    variance = (grouped - mean).square().mean(2, keepdim=True)
    u = ((grouped - mean) / (variance + eps).sqrt()).reshape(data.shape)
    for name, shape in (
        ("weight", (1, -1)),
        ("bias", (1, -1)),
        ("scale", data.shape[:2]),
        ("shift", data.shape[:2]),
    ):
        value = x[name]
        if value is not None:
            value = value.double().reshape(*shape, *beyond)
            u = {"weight": u * value, "scale": u * (1 + value)}.get(name, u + value)
    y = u / (1 + torch.exp(-u)) if silu else u
    return y if x["residual"] is None else y + x["residual"].double()


def call(
    x: dict[str, Tensor | None], groups: int, eps: float, silu: bool, out: Tensor | None = None
) -> Tensor:
    data, weight, bias, scale, shift, residual = (x[name] for name in NAMES)
    assert data is not None
    return group_norm_act(
        data, groups, weight, bias, scale=scale, shift=shift, residual=residual, eps=eps, silu=silu, out=out
    )


def runs_on(x: dict[str, Tensor | None], groups: int, eps: float = 1e-5, silu: bool = True) -> str:
    return explain("group_norm_act", x["x"], groups, *(x[name] for name in NAMES[1:]), eps, silu).backend


def leaves(x: dict[str, Tensor | None], dtype: torch.dtype | None = None) -> dict[str, Tensor | None]:
    return {
        name: None if tensor is None else tensor.detach().to(dtype or tensor.dtype).requires_grad_()
        for name, tensor in x.items()
    }


def compare(x: dict[str, Tensor | None], groups: int, eps: float, silu: bool, dy: Tensor) -> None:
    """Value and gradients, within the rounding of the storage and some units of float32 of the magnitudes summed."""
    data = x["x"]
    assert data is not None
    rough, precise = leaves(x), leaves(x, torch.float64)
    y, expected = call(rough, groups, eps, silu), exact(precise, groups, eps, silu)
    assert y.dtype == data.dtype
    assert y.shape == data.shape
    compute = EPSILON[torch.float64 if data.dtype == torch.float64 else torch.float32]
    if not data.numel():
        y.backward(dy)
        return
    largest = {
        name: float(tensor.detach().abs().max()) for name, tensor in precise.items() if tensor is not None
    }
    slope = 1.0
    for name in ("weight", "scale"):
        if precise[name] is not None:
            slope *= 1 + float(precise[name].detach().abs().max())
    grouped = data.double().reshape(len(data), groups, -1)
    rstd = ((grouped - grouped.mean(2, keepdim=True)).square().mean(2) + eps).rsqrt()
    hat = ((grouped - grouped.mean(2, keepdim=True)) * rstd[..., None]).abs().max()
    size = slope * (1 + hat + largest.get("bias", 0)) + largest.get("shift", 0) + largest.get("residual", 0)
    assert ((y - expected).abs() <= EPSILON[data.dtype] * expected.abs() + 16 * compute * (1 + size)).all()

    y.backward(dy)
    expected.backward(dy.double())
    summed = dy.double().abs().max() * slope * (1 + hat) * (1 + hat) * (2 + float(size))
    over_pixels, over_all = math.prod(data.shape[2:]), math.prod(data.shape[2:]) * len(data)
    bounds = {
        "x": 32 * compute * summed * rstd.max(),
        "weight": 4 * compute * summed * (8 + over_all),
        "bias": 4 * compute * summed * (8 + over_all),
        "scale": 4 * compute * summed * (8 + over_pixels),
        "shift": 4 * compute * summed * (8 + over_pixels),
        "residual": 0.0,
    }
    for name, bound in bounds.items():
        if rough[name] is None:
            continue
        found, wanted = rough[name].grad, precise[name].grad
        assert found.dtype == rough[name].dtype
        assert ((found - wanted).abs() <= EPSILON[found.dtype] * wanted.abs() + bound).all(), name


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    groups = draw(st.sampled_from([1, 2, 3, 8, 32]))
    dtype = draw(st.sampled_from(list(EPSILON)))
    return {
        "shape": (
            draw(st.integers(0, 3)),
            groups * draw(st.sampled_from([1, 2, 3, 5])),
            *draw(st.lists(st.sampled_from([1, 2, 3, 5, 8, 17, 33]), max_size=3)),
        ),
        "groups": groups,
        "dtype": dtype,
        "parameter_dtype": draw(st.sampled_from([dtype, torch.float32])),
        "layout": draw(st.sampled_from(LAYOUTS)),
        "parameters": tuple(name for name in NAMES[1:] if draw(st.booleans())),
        "eps": draw(st.sampled_from([1e-5, 1e-2])),
        "silu": draw(st.booleans()),
        "gradient": draw(st.sampled_from([*LAYOUTS, "expanded"])),
        "seed": draw(st.integers(0, 2**30)),
    }


def check_case(case: dict[str, Any]) -> None:
    x = problem(
        *(case[name] for name in ("shape", "dtype", "layout", "parameters", "parameter_dtype", "seed"))
    )
    generator = torch.Generator().manual_seed(case["seed"])
    dy = torch.randn(case["shape"], generator=generator).to(case["dtype"])
    dy = (
        dy.new_full((), 0.5).expand(case["shape"])
        if case["gradient"] == "expanded"
        else laid_out(dy, case["gradient"])
    )
    if math.prod(case["shape"][2:]) * case["shape"][1] // case["groups"] < 4:
        case["eps"] = 1e-2  # x̂ of one or two elements is a step function of them
    compare(x, case["groups"], case["eps"], case["silu"], dy)
    if case["layout"] != "strided" and case["dtype"] != torch.float64 and NATIVE:
        assert runs_on(x, case["groups"]) == "native"


@given(case=cases())
@settings(deadline=None, max_examples=200)
def test_equation_and_gradients(case: dict[str, Any]) -> None:
    check_case(case)


@pytest.mark.slow
@given(case=cases())
@settings(deadline=None, max_examples=2000)
def test_two_thousand_more(case: dict[str, Any]) -> None:
    check_case(case)


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shape", [(1, 6, 70, 70), (3, 64, 33, 32), (5, 8, 128, 64)])
def test_work_that_threads_share(shape: tuple[int, ...], threads: int, layout: str) -> None:
    """Groups of many pieces, more or fewer than the threads; the threads do not change a bit."""
    x = problem(shape, torch.float32, layout, NAMES[1:])
    dy = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        compare(x, 2, 1e-5, True, dy)
        shared = call(x, 2, 1e-5, True)
        torch.set_num_threads(1)
        if NATIVE:
            assert torch.equal(call(x, 2, 1e-5, True), shared)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mean", [1e4, -3e5])
def test_large_mean(layout: str, mean: float) -> None:
    """The rounding of a float32 mean, 5e-4 at 1e4, shows neither in the values nor in the gradients."""
    x = problem((2, 8, 31, 33), torch.float32, layout, NAMES[1:])
    x["x"] = laid_out(x["x"] / 2 + mean, layout)
    compare(x, 4, 1e-5, True, torch.randn(2, 8, 31, 33, generator=torch.Generator().manual_seed(2)))


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_a_mean_that_moves(layout: str) -> None:
    """The worst for a shift by the first element: channels and pixels far apart, and little else."""
    x = problem((2, 8, 64, 64), torch.float32, layout)
    x["x"] = x["x"] + 1e3 * torch.arange(8.0).view(8, 1, 1) + 50 * torch.arange(64.0).view(64, 1)
    x["x"][0, 0, 0, 0] = 1e6
    x["x"] = laid_out(x["x"], layout)
    compare(x, 2, 1e-5, False, torch.ones(2, 8, 64, 64))


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_constant_groups(layout: str) -> None:
    x = problem((2, 6, 9, 9), torch.float32, layout, ("weight", "bias"))
    x["x"].fill_(12345.678)
    expected = x["bias"].view(1, 6, 1, 1).expand(2, 6, 9, 9)
    torch.testing.assert_close(call(x, 3, 1e-5, False), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("silu", [False, True])
def test_what_is_not_finite_spoils_its_group_alone(
    value: float, layout: str, dtype: torch.dtype, silu: bool
) -> None:
    x = problem((2, 8, 5, 7), dtype, layout, ("weight", "bias"))
    x["x"][1, 5, 2, 3] = value
    expected = functional.group_norm(x["x"].float(), 4, x["weight"], x["bias"])
    expected = functional.silu(expected) if silu else expected
    y = call(x, 4, 1e-5, silu)
    assert torch.equal(y.isfinite(), expected.isfinite())
    assert not y[1, 4:6].isfinite().any()
    assert y[0].isfinite().all()
    dx = torch.autograd.grad(call(leaf := leaves(x), 4, 1e-5, silu).sum(), leaf["x"])[0]
    assert not dx[1, 4:6].isfinite().any()
    assert dx[0].isfinite().all()


def test_silu_of_every_size() -> None:
    """u through the bias; to three units of the last place where u σ(u) is a normal number."""
    u = torch.cat([torch.linspace(-86, 86, 20001), torch.tensor([-1e4, -200.0, -90.0, 90.0, 1e4, 1e30, 0.0])])
    x = dict.fromkeys(NAMES) | {"x": torch.zeros(1, len(u)), "bias": u}
    y = call(x, len(u), 1.0, True)[0]
    expected = functional.silu(u.double())
    assert ((y - expected).abs() <= 3 * 2.0**-23 * expected.abs() + 1e-33).all()
    rough = leaves(x)
    call(rough, len(u), 1.0, True).sum().backward()
    precise = u.double().requires_grad_()
    functional.silu(precise).sum().backward()
    wanted, found = precise.grad, rough["bias"].grad
    assert (
        (found - wanted).abs() <= 8 * 2.0**-23 * (wanted.abs() + (u.abs() * u.sigmoid()).clamp(max=1)) + 1e-30
    ).all()


@pytest.mark.parametrize("aliased", ["x", "residual", "none", "strided", "shifted"])
@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_out(aliased: str, layout: str) -> None:
    x = problem((2, 8, 9, 5), torch.float32, layout, NAMES[1:])
    expected = call(x, 4, 1e-5, True)
    if aliased in x:
        out = x[aliased]
    elif aliased == "strided":
        out = torch.empty(2, 8, 9, 10)[..., ::2]
    elif aliased == "shifted":
        memory = torch.empty(721)
        x["x"] = memory[1:].as_strided(x["x"].shape, x["x"].stride()).copy_(x["x"])
        out = memory[:720].as_strided(x["x"].shape, x["x"].stride())
    else:
        out = torch.empty_like(x["x"])
    assert call(x, 4, 1e-5, True, out=out) is out
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(UsageError, match="group_norm_act_out has no gradient"):
        call(leaves(x), 4, 1e-5, True, out=out)


@pytest.mark.parametrize("shape", [(0, 6, 3), (2, 6, 0), (2, 6, 0, 4), (0, 6)])
def test_empty(shape: tuple[int, ...]) -> None:
    x = leaves(problem(shape, torch.float32, parameters=NAMES[1:]))
    y = call(x, 3, 1e-5, True)
    assert y.shape == shape
    y.sum().backward()
    for tensor in x.values():
        assert not tensor.grad.any()


def test_the_memory_format_is_kept() -> None:
    for layout in ("contiguous", "channels last"):
        x = problem((2, 8, 4, 4), torch.float32, layout)
        assert call(x, 2, 1e-5, True).stride() == x["x"].stride()


def test_parameters_of_any_stride() -> None:
    """As `chunk` leaves scale and shift, and `expand` a weight."""
    x = problem((3, 8, 4, 4), torch.float32, parameters=NAMES[1:])
    wide = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    x["scale"], x["shift"] = wide.chunk(2, 1)
    x["weight"] = torch.full((1,), 1.5).expand(8)
    compare(x, 4, 1e-5, True, torch.ones(3, 8, 4, 4))
    if NATIVE:
        assert runs_on(x, 4) == "native"


@pytest.mark.parametrize("downstream", ["sum", "cat", "transpose", "autocast"])
def test_gradients_with_strides(downstream: str) -> None:
    x = problem((2, 8, 6, 5), torch.float32, "channels last", ("weight", "bias"))

    def loss(y: Tensor) -> Tensor:
        if downstream == "sum":
            return y.sum()
        if downstream == "cat":
            return (torch.cat([y, 2 * y], 1) ** 2).sum()
        return (y.transpose(1, 2) @ y.transpose(1, 2).mT).sum()

    rough, precise = leaves(x), leaves(x, torch.float64)
    if downstream == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            call(rough, 4, 1e-5, True).sum().backward()
        exact(precise, 4, 1e-5, True).sum().backward()
    else:
        loss(call(rough, 4, 1e-5, True)).backward()
        loss(exact(precise, 4, 1e-5, True)).backward()
    for name in ("x", "weight", "bias"):
        scale = precise[name].grad.abs().max()
        assert ((rough[name].grad - precise[name].grad).abs() <= 1e-5 * (1 + scale)).all()


def test_gradcheck() -> None:
    x = leaves(problem((2, 6, 3, 2), torch.float64, parameters=NAMES[1:], parameter_dtype=torch.float64))

    def function(*tensors: Tensor) -> Tensor:
        return call(dict(zip(NAMES, tensors, strict=True)), 3, 1e-2, True)

    assert torch.autograd.gradcheck(function, tuple(x.values()))
    assert torch.autograd.gradgradcheck(function, tuple(x.values()))


def test_only_wanted_gradients_are_made() -> None:
    x = problem((2, 8, 3, 3), torch.float32, parameters=NAMES[1:])
    for name in ("x", "bias", "residual"):
        y = call({**x, name: x[name].clone().requires_grad_()}, 4, 1e-5, True)
        assert y.requires_grad
    mean, rstd = torch.zeros(2, 4), torch.ones(2, 4)
    made = torch.ops.trilemma.group_norm_act_backward.default(
        x["x"],
        x["x"],
        mean,
        rstd,
        4,
        x["weight"],
        None,
        None,
        x["shift"],
        True,
        [False, True, True, False, True],
    )
    assert [tuple(tensor.shape) for tensor in made] == [(0,), (8,), (0,), (0,), (2, 8)]


def test_a_second_derivative_in_float32() -> None:
    """A gradient penalty, against float64."""
    penalties = []
    for dtype in (torch.float32, torch.float64):
        x = leaves(problem((2, 6, 4, 4), torch.float32, parameters=("weight", "bias")), dtype)
        (dx,) = torch.autograd.grad(call(x, 3, 1e-5, True).square().sum(), x["x"], create_graph=True)
        dx.square().sum().backward()
        penalties.append(x["weight"].grad)
    torch.testing.assert_close(penalties[0].double(), penalties[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(6)}, "expected a floating-point"),
        ({"x": torch.zeros(2, 6, 3, 3, dtype=torch.int64)}, "expected a floating-point"),
        ({"weight": torch.zeros(5)}, "weight is torch.float32 of shape"),
        ({"bias": torch.zeros(6, dtype=torch.float64)}, "bias is torch.float64"),
        ({"scale": torch.zeros(6)}, "scale is"),
        ({"shift": torch.zeros(2, 5)}, "shift is"),
        ({"residual": torch.zeros(2, 6, 3)}, "residual is"),
        ({"residual": torch.zeros(2, 6, 3, 3, dtype=torch.bfloat16)}, "residual is torch.bfloat16"),
        ({"weight": torch.zeros(6, device="meta")}, "weight is on meta"),
        ({"residual": torch.zeros(2, 6, 3, 3, device="meta")}, "residual is on meta"),
    ],
)
def test_arguments_that_do_not_fit(change: dict[str, Tensor], message: str) -> None:
    x = problem((2, 6, 3, 3), torch.float32, parameters=NAMES[1:]) | change
    with pytest.raises(UsageError, match=message) as caught:
        OPERATORS["group_norm_act"].check(x["x"], 3, *(x[name] for name in NAMES[1:]), 1e-5, True)
    assert "\n" not in str(caught.value)
    if "meta" not in message:
        with pytest.raises(UsageError, match=message):
            call(x, 3, 1e-5, True)


@pytest.mark.parametrize("groups", [0, 4, 7])
def test_groups_that_do_not_divide(groups: int) -> None:
    with pytest.raises(UsageError, match=f"groups={groups} does not divide the 6 channels"):
        group_norm_act(torch.zeros(2, 6, 3), groups)


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_torch_checks_the_operators(dtype: torch.dtype, layout: str) -> None:
    x = leaves(problem((2, 6, 3, 3), dtype, layout, NAMES[1:]))
    arguments = (x["x"], 3, *(x[name] for name in NAMES[1:]), 1e-5, True)
    torch.library.opcheck(torch.ops.trilemma.group_norm_act.default, arguments, {"backend": "auto"})
    plain = [tensor.detach() if isinstance(tensor, Tensor) else tensor for tensor in arguments]
    y, mean, rstd = torch.ops.trilemma.group_norm_act.default(*plain)
    utilities = ("test_schema", "test_faketensor")
    torch.library.opcheck(
        torch.ops.trilemma.group_norm_act_out.default, (y, *plain), {"backend": "auto"}, test_utils=utilities
    )
    torch.library.opcheck(
        torch.ops.trilemma.group_norm_act_backward.default,
        (y, plain[0], mean, rstd, 3, *plain[2:6], True, [True] * 5),
        {"backend": "auto"},
        test_utils=utilities,
    )


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "sizes", [(3, 6, 1, 2), (2, 24, 65, 3), (2, 70, 9, 1), (1, 4, 5000, 2), (2, 64, 400, 32)]
)
def test_instruction_sets_agree(
    sizes: tuple[int, int, int, int], dtype: torch.dtype, channels_last: bool
) -> None:
    """To rounding among each other; to the bit between whole units and phases cut as finely as they can be."""
    _C = pytest.importorskip(
        "trilemma._C", reason="the native libraries were not built", exc_type=ImportError
    )
    batch, channels, spatial, groups = sizes
    x = problem(
        (batch, channels, spatial), dtype, "channels last" if channels_last else "contiguous", NAMES[1:]
    )
    dy = torch.randn(sizes[:3], generator=torch.Generator().manual_seed(1)).to(dtype)
    dy = laid_out(dy, "channels last" if channels_last else "contiguous")
    precise = leaves(x, torch.float64)
    expected_y = exact(precise, groups, 1e-2, True)
    expected_y.backward(dy.double())
    wanted = [expected_y.detach(), *(precise[name].grad for name in NAMES[:5])]
    for isa in _C.cpu_isas():
        results = []
        for whole in (True, False):
            mean, rstd = torch.empty(batch, groups), torch.empty(batch, groups)
            y, dx = torch.empty_like(x["x"]), torch.empty_like(x["x"])
            gradients = [torch.empty_like(x[name]) for name in NAMES[1:5]]
            shared: dict[str, Any] = {
                "isa": isa,
                "dtype": str(dtype).removeprefix("torch."),
                "sizes": sizes,
                "channels_last": channels_last,
                "silu": True,
                "eps": 1e-2,
                "x": x["x"].data_ptr(),
                "mean": mean.data_ptr(),
                "rstd": rstd.data_ptr(),
                "parameters": [x[name].data_ptr() for name in NAMES[1:5]],
                "whole": whole,
            }
            _C.group_norm(**shared, residual=x["residual"].data_ptr(), y=y.data_ptr())
            _C.group_norm(
                **shared,
                dy=dy.data_ptr(),
                dx=dx.data_ptr(),
                gradients=[tensor.data_ptr() for tensor in gradients],
            )
            results.append([y, dx, *gradients])
        for one, other in zip(*results, strict=True):
            assert torch.equal(one, other), isa
        for found, expected in zip(results[0], wanted, strict=True):
            bound = EPSILON[found.dtype] * expected.abs() + 1e-5 * (1 + expected.abs().max())
            assert ((found - expected).abs() <= bound).all(), isa


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_large_results_have_memory_of_their_own(memory_format: torch.memory_format) -> None:
    """Their blocks are kept for later results, never for two at a time, and whatever was in them is written over."""
    x = torch.randn(2, 16, 200, 200).contiguous(memory_format=memory_format)
    expected = functional.silu(functional.group_norm(x, 4))
    alive = [group_norm_act(x, 4, silu=True) for _ in range(3)]
    assert len({y.untyped_storage().data_ptr() for y in alive}) == 3
    alive[0].fill_(torch.nan)
    first, view = alive[0].data_ptr(), alive[1][0, 0]
    del alive[:]
    again = [group_norm_act(x, 4, silu=True) for _ in range(3)]
    for y in again:
        torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
        assert y.stride() == x.stride()
    assert view.data_ptr() not in {y.data_ptr() for y in again}  # it keeps its tensor's memory
    torch.testing.assert_close(view, expected[0, 0], rtol=1e-5, atol=1e-5)
    if not native.load():
        assert first in {y.data_ptr() for y in again}
