"""Derivatives and transforms of every operator: the right value, by finite differences, or a refusal; never silence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional as F

from trilemma import ops
from trilemma.errors import TrilemmaError
from trilemma.ops import OPERATORS, layout
from trilemma.ops.attention import _ATTENTION_BACKWARD
from trilemma.ops.convolution import transformed
from trilemma.ops.group_norm import _BACKWARD

STEP = 1e-6


@dataclass
class Case:
    """A function of float64 tensors that an operator computes, and the tensors."""

    run: Callable[..., Tensor]
    tensors: dict[str, Tensor]


def some(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape) + seed))


def group_norm(
    x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor, residual: Tensor
) -> Tensor:
    return ops.group_norm_act(x, 2, weight, bias, scale=scale, shift=shift, residual=residual, silu=True)


def convolved(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return ops.conv3x3(x, weight, bias)


def noised(x0: Tensor, coefficients: Tensor, noise: Tensor) -> Tensor:
    z, target = ops.perturb(x0, coefficients, noise=noise)
    return torch.cat([z, 2 * target])


def group_norm_gradient(dy: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    mean = x.unflatten(1, (2, -1)).flatten(2).mean(2)
    rstd = (x.unflatten(1, (2, -1)).flatten(2).var(2, correction=0) + 1e-5).rsqrt()
    wanted = [True, True, False, False, False]
    return _BACKWARD(dy, x, mean, rstd, 2, weight, None, None, None, False, wanted)[0]


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return ops.layer_norm(x, weight, bias, scale=scale, shift=shift)


def layer_norm_gradient(dy: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    mean, rstd = x.mean(-1), (x.var(-1, correction=0) + 1e-5).rsqrt()
    wanted = [True, True, False, False, False]
    return OPERATORS["layer_norm_backward"](dy, x, mean, rstd, weight, None, None, None, wanted)[0]


FUNCTIONAL: dict[str, Case] = {
    "group_norm_act": Case(
        group_norm,
        {
            "x": some(2, 4, 3, 3),
            "weight": some(4),
            "bias": some(4, seed=1),
            "scale": some(2, 4),
            "shift": some(2, 4, seed=1),
            "residual": some(2, 4, 3, 3, seed=1),
        },
    ),
    "group_norm_act_backward": Case(
        group_norm_gradient, {"dy": some(2, 4, 3), "x": some(2, 4, 3, seed=1), "weight": some(4)}
    ),
    "layer_norm": Case(
        layer_norm,
        {
            "x": some(2, 3, 4),
            "weight": some(4),
            "bias": some(4, seed=1),
            "scale": some(2, 4),
            "shift": some(2, 4, seed=1),
        },
    ),
    "layer_norm_backward": Case(
        layer_norm_gradient, {"dy": some(2, 3, 4), "x": some(2, 3, 4, seed=1), "weight": some(4)}
    ),
    "glu": Case(ops.glu, {"x": some(2, 3, 8)}),
    "glu_backward": Case(
        lambda dy, x: OPERATORS["glu_backward"](dy, x, True),
        {"dy": some(2, 3, 4), "x": some(2, 3, 8, seed=1)},
    ),
    "attention": Case(
        ops.attention, {"q": some(1, 2, 3, 4), "k": some(1, 2, 5, 4, seed=1), "v": some(1, 2, 5, 4, seed=2)}
    ),
    "conv3x3": Case(convolved, {"x": some(2, 3, 5, 4), "weight": some(2, 3, 3, 3), "bias": some(2)}),
    "perturb": Case(
        noised, {"x0": some(2, 3, 2), "coefficients": some(2, 4), "noise": some(2, 3, 2, seed=1)}
    ),
}
# What is computed of the results of another operator: its derivatives are refused, for they lead through those.
NO_MORE = {"attention_backward"}


def table() -> Tensor:
    row = torch.zeros(1, layout.WIDTH, dtype=torch.float64)
    row[0, layout.A], row[0, layout.B.start], row[0, layout.C], row[0, layout.Q] = 0.5, 0.3, 0.2, 1
    row[0, layout.S], row[0, layout.W.start], row[0, layout.CLIP], row[0, layout.P] = 1, 1, torch.inf, 0.1
    return row


def stepped(out: Tensor, z: Tensor, base: Tensor, output: Tensor, history: Tensor, noise: Tensor) -> Tensor:
    ops.linear_step(
        out, z, base, output, table(), 0, history=history, write_slot=0, read_slots=[1], noise=noise
    )
    return out


def replayed(out: Tensor, z: Tensor, base: Tensor, output: Tensor, history: Tensor, noise: Tensor) -> Tensor:
    numbers = (table().float(), torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
    slots: dict[str, Any] = {"history": history, "write_slot": 0, "read_slots": [1]}
    ops.linear_step_replay(out, z, base, output, *numbers, **slots, noise=noise)
    return out


def thresholded(x: Tensor) -> Tensor:
    return ops.dynamic_threshold(x, 0.9, 1.0)


def thresholded_into(out: Tensor, x: Tensor) -> Tensor:
    return ops.dynamic_threshold(x, 0.9, 1.0, out=out)


def normal(out: Tensor) -> Tensor:
    ops.keyed_normal(out, torch.arange(len(out)), seed=1, step=2, stream=3)
    return out


def group_norm_into(out: Tensor, x: Tensor, weight: Tensor, residual: Tensor) -> Tensor:
    return ops.group_norm_act(x, 2, weight, residual=residual, out=out)


def states() -> dict[str, Tensor]:
    names = ("out", "z", "base", "output")
    return {
        **{name: some(2, 4, seed=number) for number, name in enumerate(names)},
        "history": some(2, 2, 4),
        "noise": some(2, 4, seed=9),
    }


WRITING: dict[str, Case] = {
    "linear_step": Case(stepped, states()),
    "linear_step_replay": Case(replayed, states()),
    "dynamic_threshold": Case(thresholded_into, {"out": some(2, 4), "x": some(2, 4, seed=1)}),
    "keyed_normal": Case(normal, {"out": some(2, 4)}),
    "group_norm_act_out": Case(
        group_norm_into,
        {
            "out": some(2, 4, 3),
            "x": some(2, 4, 3, seed=1),
            "weight": some(4),
            "residual": some(2, 4, 3, seed=2),
        },
    ),
}
ASKED = [(operator, name) for operator, case in FUNCTIONAL.items() for name in case.tensors]
WRITTEN = [(operator, name) for operator, case in WRITING.items() for name in case.tensors]
each_argument = pytest.mark.parametrize(("operator", "name"), ASKED)


def test_every_operator_is_here() -> None:
    assert {*FUNCTIONAL, *WRITING, *NO_MORE} == {*ops.OPERATORS}


def of(case: Case, name: str) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """The function of one of the tensors alone, and that tensor."""
    fixed = {other: value.clone() for other, value in case.tensors.items()}
    return lambda value: case.run(**{**fixed, name: value}), fixed[name]


def direction(x: Tensor) -> Tensor:
    return torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(77))


def slope(function: Callable[[Tensor], Tensor], x: Tensor, v: Tensor) -> Tensor:
    """The derivative along v by central differences, nothing but the operator's values asked for."""
    with torch.no_grad():
        return (function(x + STEP * v) - function(x - STEP * v)) / (2 * STEP)


def close(found: Tensor, wanted: Tensor) -> None:
    assert wanted.abs().max() > 1e-3
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


@each_argument
def test_forward_mode(operator: str, name: str) -> None:
    function, x = of(FUNCTIONAL[operator], name)
    v = direction(x)
    wanted = slope(function, x, v)
    value, tangent = torch.func.jvp(function, (x,), (v,))
    close(tangent, wanted)
    close(value, function(x))
    for mode in (torch.no_grad, torch.enable_grad):
        with mode(), forward_ad.dual_level():
            dual = forward_ad.unpack_dual(function(forward_ad.make_dual(x, v)))
            assert dual.tangent is not None, "the derivative was lost"
            close(dual.tangent, wanted)
    assert function(x).requires_grad is False


@each_argument
def test_forward_mode_of_half_precision_is_not_silent(operator: str, name: str) -> None:
    case = FUNCTIONAL[operator]
    single = Case(
        case.run,
        {other: value if other == "coefficients" else value.float() for other, value in case.tensors.items()},
    )
    function, x = of(single, name)
    wanted = slope(*of(case, name), direction(x).double())
    found = torch.func.jvp(function, (x,), (direction(x).to(x.dtype),))[1]
    torch.testing.assert_close(
        found.double(),
        torch.func.jvp(of(case, name)[0], (x.double(),), (direction(x).double(),))[1],
        rtol=1e-3,
        atol=1e-3,
    )
    assert wanted.shape == found.shape


@each_argument
def test_reverse_mode(operator: str, name: str) -> None:
    function, x = of(FUNCTIONAL[operator], name)
    v = direction(x)
    wanted = slope(lambda value: function(value).square().sum(), x, v)
    x.requires_grad_()
    (plain,) = torch.autograd.grad(function(x).square().sum(), x)
    close((plain * v).sum(), wanted)
    functional = torch.func.grad(lambda value: function(value).square().sum())(x.detach())
    close((functional * v).sum(), wanted)


@each_argument
def test_second_derivatives(operator: str, name: str) -> None:
    function, x = of(FUNCTIONAL[operator], name)
    v = direction(x)

    def gradient(value: Tensor) -> Tensor:
        value = value.detach().requires_grad_()
        return torch.autograd.grad(function(value).pow(3).sum(), value)[0].detach()

    with torch.no_grad():
        ahead, behind = x + STEP * v, x - STEP * v
    wanted = (gradient(ahead) - gradient(behind)) / (2 * STEP)
    first = torch.func.grad(lambda value: function(value).pow(3).sum())
    forward_over_reverse = torch.func.jvp(first, (x,), (v,))[1]
    reverse_over_reverse = torch.func.grad(lambda value: (first(value) * v).sum())(x)
    torch.testing.assert_close(forward_over_reverse, wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(reverse_over_reverse, wanted, rtol=1e-4, atol=1e-4)
    if operator == "attention":  # see below
        return
    y = x.clone().requires_grad_()
    (plain,) = torch.autograd.grad(function(y).pow(3).sum(), y, create_graph=True)
    (second,) = torch.autograd.grad((plain * v).sum(), y)
    torch.testing.assert_close(second, wanted, rtol=1e-4, atol=1e-4)


@each_argument
def test_vmap(operator: str, name: str) -> None:
    function, x = of(FUNCTIONAL[operator], name)
    many = torch.stack([x, 2 * x + 1, x.square()])
    wanted = torch.stack([function(one) for one in many])
    torch.testing.assert_close(torch.func.vmap(function)(many), wanted)
    jacobian = torch.func.jacrev(function)(x)
    torch.testing.assert_close(torch.func.jacfwd(function)(x), jacobian)
    columns = (jacobian * direction(x)).flatten(len(wanted.shape) - 1).sum(-1)
    torch.testing.assert_close(columns, slope(function, x, direction(x)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("operator", FUNCTIONAL)
def test_vmap_of_all_arguments(operator: str) -> None:
    case = FUNCTIONAL[operator]
    values = [torch.stack([value, value.sin(), 0.5 * value]) for value in case.tensors.values()]

    def run(*arguments: Tensor) -> Tensor:
        return case.run(**dict(zip(case.tensors, arguments, strict=True)))

    wanted = torch.stack([run(*(value[place] for value in values)) for place in range(3)])
    torch.testing.assert_close(torch.func.vmap(run)(*values), wanted)


@pytest.mark.parametrize(("operator", "name"), WRITTEN)
def test_what_is_written_in_place_refuses(operator: str, name: str) -> None:
    case = WRITING[operator]

    def refused(call: Callable[[], Any]) -> None:
        with pytest.raises(TrilemmaError, match="no gradient") as error:
            call()
        assert len(str(error.value)) < 300
        assert "\n" not in str(error.value)

    function, x = of(case, name)
    refused(lambda: torch.func.jvp(function, (x,), (direction(x),)))
    refused(lambda: torch.func.vmap(function)(torch.stack([x, x])))
    refused(lambda: torch.func.grad(lambda value: function(value).sum())(x))
    with forward_ad.dual_level():
        refused(lambda: function(forward_ad.make_dual(x.clone(), direction(x))))
        with torch.no_grad():
            refused(lambda: function(forward_ad.make_dual(x.clone(), direction(x))))
    refused(lambda: function(x.clone().requires_grad_()))
    with torch.no_grad():
        assert function(x.clone().requires_grad_()).isfinite().all()


def test_derivatives_of_the_gradient_of_attention_are_refused() -> None:
    q, k, v = (value.clone().requires_grad_() for value in FUNCTIONAL["attention"].tensors.values())
    (dq,) = torch.autograd.grad(ops.attention(q, k, v).square().sum(), q, create_graph=True)
    with pytest.raises(TrilemmaError, match="no second derivative"):
        torch.autograd.grad(dq.sum(), k)
    out = ops.attention(q, k, v)
    lse = (q @ k.mT / 2).logsumexp(-1)
    with pytest.raises(TrilemmaError, match="no second derivative"):
        torch.autograd.grad(_ATTENTION_BACKWARD(out, q, k, v, out, lse, None)[0].sum(), q)


@pytest.mark.parametrize("operator", [*FUNCTIONAL, *WRITING])
def test_complex_numbers_are_refused(operator: str) -> None:
    case = {**FUNCTIONAL, **WRITING}[operator]
    if operator in ("group_norm_act_backward", "layer_norm_backward"):
        pytest.skip("its arguments are made by the operator itself")
    for name, value in case.tensors.items():
        with pytest.raises((TrilemmaError, RuntimeError)) as error:
            case.run(**{**case.tensors, name: value.to(torch.complex128)})
        assert "\n" not in str(error.value).strip()


def test_another_thread_may_differentiate() -> None:
    """The level of forward-mode derivatives belongs to the process; a call here is not changed by it."""
    x, weight, bias = (some(2, 4, 3).float(), some(4).float(), some(4, seed=1).float())
    with torch.inference_mode():
        wanted = ops.group_norm_act(x, 2, weight, bias, silu=True)
        with forward_ad.dual_level():
            assert torch.equal(ops.group_norm_act(x, 2, weight, bias, silu=True), wanted)


def test_kept_filters_stand_for_the_weights() -> None:
    x, weight = some(1, 3, 5, 5), some(2, 3, 3, 3)
    found = torch.func.jvp(lambda w: ops.conv3x3(x, w, filters=transformed(weight)), (weight,), (weight,))[1]
    torch.testing.assert_close(found, F.conv2d(x, weight, padding=1))


@pytest.mark.parametrize(
    "operator", ["group_norm_act", "layer_norm", "glu", "attention", "conv3x3", "perturb"]
)
def test_a_compiled_derivative_is_not_lost(operator: str) -> None:
    case = FUNCTIONAL[operator]
    for name in list(case.tensors)[::2]:
        function, x = of(case, name)
        v = direction(x)

        def tangent(x: Tensor, v: Tensor, function: Any = function) -> Tensor:
            return torch.func.jvp(function, (x,), (v,))[1]

        close(torch.compile(tangent, backend="eager")(x, v), slope(function, x, v))
        compiled = torch.compile(function, backend="eager")
        y = x.clone().requires_grad_()
        (found,) = torch.autograd.grad(compiled(y).square().sum(), y)
        (wanted,) = torch.autograd.grad(function(y).square().sum(), y)
        close(found, wanted)
        torch._dynamo.reset()
