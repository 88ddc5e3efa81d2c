"""The noised state and the target against their equations in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trilemma.engine.noise import keyed_normal
from trilemma.errors import UsageError
from trilemma.numerics.normal import PERTURB
from trilemma.ops import explain, native, perturb

EPSILON = {torch.float32: 2.0**-23, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11, torch.float64: 2.0**-52}
SHAPES = st.lists(st.sampled_from([1, 2, 3, 17, 64, 65]), max_size=3).map(tuple)


def arguments(
    batch: int, shape: tuple[int, ...], dtype: torch.dtype, given_noise: bool, seed: int
) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    return {
        "x0": normal(batch, *shape).to(dtype),
        "coefficients": normal(batch, 4),
        "seed": 2**63 + seed,
        "step": 11,
        "indices": torch.randint(0, 2**40, (batch,), generator=generator),
        "noise": normal(batch, *shape).to(dtype) if given_noise else None,
    }


def errors(x: dict[str, Any]) -> None:
    x0 = x["x0"].double()
    noise = x["noise"]
    if noise is None:
        noise = keyed_normal(x["seed"], x["indices"], x["step"], x0.shape[1:], PERTURB, torch.float64)
    columns = x["coefficients"].view(-1, 4, *[1] * (x0.dim() - 1)).unbind(1)
    dtype = x["x0"].dtype
    compute = EPSILON[torch.float64 if dtype == torch.float64 else torch.float32]
    tiny = 2.0**-25 if dtype == torch.float16 else 1e-30
    for result, (p, q) in zip(perturb(**x), (columns[:2], columns[2:]), strict=True):
        expected = p * x0 + q * noise.double()
        magnitude = (p * x0).abs() + (q * noise.double()).abs()
        assert result.dtype == dtype
        bound = 8 * compute * magnitude + EPSILON[dtype] * expected.abs() + tiny
        assert ((result.double() - expected).abs() <= bound).all()


@given(
    batch=st.integers(0, 4),
    shape=SHAPES,
    dtype=st.sampled_from(list(EPSILON)),
    given_noise=st.booleans(),
    seed=st.integers(0, 2**30),
)
@settings(deadline=None)
def test_equation(
    batch: int, shape: tuple[int, ...], dtype: torch.dtype, given_noise: bool, seed: int
) -> None:
    errors(arguments(batch, shape, dtype, given_noise, seed))


@pytest.mark.slow
@given(
    batch=st.integers(0, 4),
    shape=SHAPES,
    dtype=st.sampled_from(list(EPSILON)),
    given_noise=st.booleans(),
    seed=st.integers(0, 2**30),
)
@settings(deadline=None, max_examples=2000)
def test_two_thousand_more(
    batch: int, shape: tuple[int, ...], dtype: torch.dtype, given_noise: bool, seed: int
) -> None:
    errors(arguments(batch, shape, dtype, given_noise, seed))


def test_a_sample_is_the_same_alone() -> None:
    x = arguments(3, (5, 70), torch.float32, False, 0)
    z, target = perturb(**x)
    one = {name: x[name][1:2] for name in ("x0", "coefficients", "indices")}
    for whole, alone in zip((z, target), perturb(**{**x, **one}), strict=True):
        assert torch.equal(whole[1:2], alone)


def test_gradients() -> None:
    x = arguments(2, (3,), torch.float64, True, 1)
    x["x0"].requires_grad_()
    assert torch.autograd.gradcheck(lambda x0: perturb(**{**x, "x0": x0}), (x["x0"],))
    y = arguments(2, (3, 4), torch.float32, False, 1)
    y["x0"].requires_grad_()
    z, target = perturb(**y)
    (z.sum() + target.mT.expand(2, 4, 3).sum() * 2).backward()
    alpha, _, a, _ = y["coefficients"].float().view(2, 4, 1, 1).unbind(1)
    torch.testing.assert_close(y["x0"].grad, (alpha + 2 * a).expand(2, 3, 4))


def test_strided_tensors_run_on_the_reference() -> None:
    x = arguments(2, (6, 4), torch.float32, True, 2)
    expected = perturb(**x)
    x["x0"] = x["x0"].transpose(1, 2).contiguous().transpose(1, 2)
    for result, wanted in zip(perturb(**x), expected, strict=True):
        torch.testing.assert_close(result, wanted)
    if not native.load():
        assert "not contiguous" in explain("perturb", **x).passed_over["native"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise": None, "indices": None}, "give indices"),
        ({"noise": torch.zeros(2, 4)}, "noise has shape"),
        ({"coefficients": torch.zeros(2, 4)}, "expected float64"),
        ({"indices": torch.zeros(3, dtype=torch.int64)}, "indices is"),
        ({"x0": torch.zeros(2, 3, dtype=torch.int64)}, "floating-point"),
    ],
)
def test_arguments_that_do_not_fit(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        perturb(**{**arguments(2, (3,), torch.float32, True, 0), **change})
    assert "\n" not in str(caught.value)


def test_mixed_devices_are_refused_by_name() -> None:
    x = arguments(2, (3,), torch.float32, True, 0) | {"noise": torch.zeros(2, 3, device="meta")}
    with pytest.raises(UsageError, match="noise is on meta"):
        explain("perturb", **x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_torch_checks_the_operator(dtype: torch.dtype) -> None:
    x = arguments(2, (3,), dtype, False, 0)
    x["x0"].requires_grad_()
    torch.library.opcheck(
        torch.ops.trilemma.perturb.default, (*(x | {"seed": 3}).values(),), {"backend": "auto"}
    )
