"""The fused step against its equation in float64, on whichever backend runs here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from trilemma.engine.noise import keyed_normal
from trilemma.errors import UsageError
from trilemma.numerics.normal import STEP
from trilemma.ops import layout, linear_step
from trilemma.ops.linear_step import StepArguments, reference_step

SEED = 2**63 + 12345
EPSILON = {torch.float32: 2.0**-23, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11, torch.float64: 2.0**-52}
HALF_STEP = {torch.float16: 2.0**-25}  # of the subnormal numbers; the other types reach far further down


@dataclass
class Case:
    """The arguments of one call, made from a seed."""

    batch: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    branches: int
    replicas: int
    slots: int
    read_slots: list[int]
    write_slot: int
    noise: str
    clip: float
    seed: int
    components: int = 1
    others: int = 0

    @property
    def columns(self) -> layout.Columns:
        return layout.Columns(self.components)

    @property
    def state(self) -> tuple[int, ...]:
        return self.shape if self.components == 1 else (self.components * self.shape[0], *self.shape[1:])

    def arguments(self) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(self.seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(self.dtype)

        table = torch.randn(3, self.columns.WIDTH, generator=generator, dtype=torch.float64)
        table[:, self.columns.CLIP] = self.clip
        if self.noise == "none":
            table[:, self.columns.C] = 0
        one = (self.batch, *self.state)
        return {
            "out": torch.full((self.replicas * self.batch, *self.state), math.nan, dtype=self.dtype),
            "z": normal(*one),
            "base": normal(*one),
            "output": normal(self.branches * self.batch, *self.shape) if self.branches else None,
            "table": table,
            "row": 1,
            "history": normal(self.slots, self.batch, *self.shape) if self.slots else None,
            "write_slot": self.write_slot,
            "read_slots": self.read_slots,
            "seed": SEED,
            "indices": torch.randint(0, 2**40, (self.batch,), generator=generator),
            "noise": normal(*one) if self.noise == "given" else None,
            "bad_row": torch.full((self.batch,), -1, dtype=torch.int32),
            "others": [normal(*one) for _ in range(self.others)],
        }


@st.composite
def cases(
    draw: st.DrawFn,
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16, torch.float16),
    components: tuple[int, ...] = (1, 2),
) -> Case:
    slots = draw(st.integers(0, 4))
    slot = st.integers(0, slots - 1)
    count = draw(st.sampled_from(components))
    sizes = st.lists(st.sampled_from([1, 2, 3, 5, 17, 63, 64, 65]), min_size=count - 1, max_size=3)
    return Case(
        batch=draw(st.integers(0, 5)),
        shape=tuple(draw(sizes)),
        dtype=draw(st.sampled_from(dtypes)),
        branches=draw(st.integers(0, layout.MAX_BRANCHES)),
        replicas=draw(st.integers(1, layout.MAX_BRANCHES)),
        slots=slots,
        read_slots=draw(st.lists(slot, max_size=layout.MAX_LAGS)) if slots else [],
        write_slot=draw(slot | st.just(-1)) if slots else -1,
        noise=draw(st.sampled_from(["none", "keyed", "given"])),
        clip=draw(st.sampled_from([math.inf, 0.5, 2.0])),
        seed=draw(st.integers(0, 2**32)),
        components=count,
        others=draw(st.integers(0, layout.MAX_OTHERS)),
    )


def exact_step(x: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """z' and f of the equation in float64, and the sum of the magnitudes that went into z'."""
    columns = layout.columns(x["table"].shape[1])
    assert columns is not None
    k = columns.components
    row = x["table"][x["row"]]

    def split(tensor: Tensor) -> Tensor:  # [K, B, ...]
        return torch.stack(tensor.double().chunk(k, 1)) if k > 1 else tensor.double()[None]

    def mixed(coefficients: Tensor, tensors: Tensor) -> Tensor:  # contracts the first dim of the tensors
        return torch.tensordot(coefficients, tensors, dims=1)

    z, base = split(x["z"]), split(x["base"])
    batch = len(x["z"])
    # No evaluation is one of zeros.
    output = (
        torch.zeros_like(x["z"].chunk(k, 1)[0] if k > 1 else x["z"]) if x["output"] is None else x["output"]
    )
    branches = output.double().unflatten(0, (-1, batch)) if batch else output.double()[None]
    weights = row[columns.W][: len(branches)]
    P, R, A, C = row[columns.P], row[columns.R], row[columns.A].view(k, k), row[columns.C].view(k, k)
    B = row[columns.B].view(-1, k)
    u = mixed(P, z) + row[columns.Q] * mixed(weights, branches)
    f = mixed(R, z) + row[columns.S] * u.clamp(-row[columns.CLIP], row[columns.CLIP])
    inner = mixed(P.abs(), z.abs()) + row[columns.Q].abs() * mixed(weights.abs(), branches.abs())
    f_magnitude = mixed(R.abs(), z.abs()) + row[columns.S].abs() * inner
    lags = [x["history"][slot].double() for slot in x["read_slots"]]
    f_like = torch.stack([f, *lags])
    magnitudes = torch.stack([f_magnitude, *(lag.abs() for lag in lags)])
    used = B[: len(f_like)].T
    result = mixed(A, base) + mixed(used, f_like)
    magnitude = mixed(A.abs(), base.abs()) + mixed(used.abs(), magnitudes)
    for D, other in zip(row[columns.D].view(-1, k, k), x["others"], strict=False):
        result = result + mixed(D, split(other))
        magnitude = magnitude + mixed(D.abs(), split(other).abs())
    if C.any():
        noise = x["noise"]
        if noise is None:
            noise = keyed_normal(SEED, x["indices"], x["row"], x["z"].shape[1:], STEP, torch.float64)
        result = result + mixed(C, split(noise))
        magnitude = magnitude + mixed(C.abs(), split(noise).abs())
    joined = (torch.cat(list(t), 1) if k > 1 else t[0] for t in (result, magnitude))
    result, magnitude = joined
    return result, f, magnitude


@given(case=cases((torch.float32, torch.bfloat16, torch.float16, torch.float64)))
@settings(deadline=None, max_examples=150)
def test_equation(case: Case) -> None:
    x = case.arguments()
    history = None if x["history"] is None else x["history"].clone()
    expected, f, magnitude = exact_step(x)
    linear_step(**x)
    compute = EPSILON[torch.float64 if case.dtype == torch.float64 else torch.float32]
    tiny = HALF_STEP.get(case.dtype, 1e-30)
    bound = 16 * compute * magnitude + EPSILON[case.dtype] * expected.abs() + tiny
    for replica in x["out"].unflatten(0, (case.replicas, case.batch)):
        assert ((replica.double() - expected).abs() <= bound).all()
    assert (x["bad_row"] == -1).all()
    for slot in range(case.slots):
        assert history is not None
        if slot == case.write_slot:
            f_bound = 16 * compute * (f.abs() + 100) + EPSILON[case.dtype] * f.abs() + tiny
            assert ((x["history"][slot].double() - f).abs() <= f_bound).all()
        else:
            assert torch.equal(x["history"][slot], history[slot])


@given(case=cases())
@settings(deadline=None, max_examples=150)
def test_backends_agree(case: Case) -> None:
    """Bit for bit where no noise is made inside, whose logarithm and cosine differ in the last places."""
    x, y = case.arguments(), case.arguments()
    linear_step(**x)
    reference_step(StepArguments(**y))
    if case.noise != "keyed":
        assert torch.equal(x["out"], y["out"])
    else:
        torch.testing.assert_close(x["out"], y["out"], rtol=2 * EPSILON[case.dtype], atol=1e-5)
    if case.slots:
        assert torch.equal(x["history"], y["history"])


@given(case=cases(), data=st.data())
@settings(deadline=None)
def test_a_sample_is_the_same_alone(case: Case, data: st.DataObject) -> None:
    x = case.arguments()
    y = case.arguments()
    linear_step(**x)
    if not case.batch:
        return
    i = data.draw(st.integers(0, case.batch - 1))
    one = slice(i, i + 1)
    for name in ("z", "base", "indices", "bad_row"):
        y[name] = y[name][one].clone()
    if case.branches:
        y["output"] = y["output"].unflatten(0, (case.branches, case.batch))[:, i].clone()
    y["others"] = [other[one].clone() for other in y["others"]]
    y["out"] = y["out"][: case.replicas]
    y["history"] = None if y["history"] is None else y["history"][:, one].clone()
    y["noise"] = None if y["noise"] is None else y["noise"][one].clone()
    linear_step(**y)
    assert torch.equal(x["out"].unflatten(0, (case.replicas, case.batch))[:, i], y["out"])
    if case.slots:
        assert torch.equal(x["history"][:, i], y["history"][:, 0])


@given(
    case=cases(),
    shared=st.sampled_from(["z", "base", "output", "noise", "others"]),
    replica=st.integers(0, 3),
)
@settings(deadline=None)
def test_out_may_be_an_input(case: Case, shared: str, replica: int) -> None:
    if shared == "output" and case.components > 1:
        return  # the two differ in shape
    x, y = case.arguments(), case.arguments()
    linear_step(**x)
    given = y[shared][-1] if shared == "others" and case.others else y[shared]
    if not isinstance(given, Tensor):
        return
    out = torch.full((4 * case.batch, *case.state), math.nan, dtype=case.dtype)
    at = 0 if shared == "output" else min(replica, case.replicas - 1) * case.batch
    moved = out[at : at + len(given)].copy_(given)
    y[shared] = [*y["others"][:-1], moved] if shared == "others" else moved
    y["out"] = out[: len(y["out"])]
    linear_step(**y)
    assert torch.equal(x["out"], y["out"])


def test_out_may_overlap_an_input_shifted() -> None:
    case = Case(3, (700,), torch.float32, 1, 2, 0, [], -1, "none", math.inf, 0)
    x, y = case.arguments(), case.arguments()
    linear_step(**x)
    out = torch.empty(6, 700)
    y["z"], y["out"] = out[1:4].copy_(y["z"]), out
    linear_step(**y)
    assert torch.equal(x["out"], y["out"])


def test_strided_tensors() -> None:
    case = Case(3, (4, 6), torch.float32, 2, 2, 2, [1, 0], 0, "keyed", 1.0, 0, others=2)
    x, y = case.arguments(), case.arguments()
    linear_step(**x)
    y["others"] = [x["others"][0], y["others"][1].transpose(-1, -2).contiguous().transpose(-1, -2)]
    for name in ("out", "z", "base", "output", "history"):
        y[name] = y[name].transpose(-1, -2).contiguous().transpose(-1, -2)
    linear_step(**y)
    torch.testing.assert_close(x["out"], y["out"], rtol=1e-5, atol=1e-5)
    assert torch.equal(x["history"], y["history"])


@pytest.mark.slow
@given(case=cases())
@settings(deadline=None, max_examples=2000)
def test_two_thousand_more(case: Case) -> None:
    x = case.arguments()
    expected, _, magnitude = exact_step(x)
    linear_step(**x)
    tiny = HALF_STEP.get(case.dtype, 1e-30)
    bound = 16 * EPSILON[torch.float32] * magnitude + EPSILON[case.dtype] * expected.abs() + tiny
    for replica in x["out"].unflatten(0, (case.replicas, case.batch)):
        assert ((replica.double() - expected).abs() <= bound).all()


def test_mixed_dtypes() -> None:
    case = Case(2, (9,), torch.float32, 1, 1, 0, [], -1, "given", math.inf, 1)
    x = case.arguments()
    expected = exact_step(x)[0]
    x["z"] = x["z"].half()
    x["out"] = x["out"].half()
    linear_step(**x)
    torch.testing.assert_close(x["out"].double(), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("clip", [math.inf, 1.0])
@pytest.mark.parametrize("at", [0, 255, 256, 299])
def test_bad_row_names_the_first_row_of_a_sample(
    dtype: torch.dtype, value: float, clip: float, at: int
) -> None:
    case = Case(4, (300,), dtype, 1, 1, 0, [], -1, "none", clip, 3)
    x = case.arguments()
    x["output"][2, at] = value
    kept = math.isnan(value) or clip == math.inf
    linear_step(**x)
    assert x["bad_row"].tolist() == [-1, -1, 1 if kept else -1, -1]
    assert bool(x["out"][2, at].isfinite()) is not kept
    x["row"] = 2
    linear_step(**x)
    assert x["bad_row"].tolist() == [-1, -1, 1 if kept else -1, -1]


def test_keyed_noise_is_that_of_the_row() -> None:
    x = Case(3, (5, 7), torch.float32, 1, 1, 0, [], -1, "keyed", math.inf, 0).arguments()
    x["table"].zero_()
    x["table"][:, layout.C] = 1
    linear_step(**x)
    assert torch.equal(x["out"], keyed_normal(SEED, x["indices"], 1, (5, 7), STEP))


class Calls(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


def test_is_one_operator() -> None:
    x = Case(3, (5,), torch.float32, 2, 2, 1, [0], 0, "keyed", 1.0, 0).arguments()
    with Calls() as calls:
        linear_step(**x)
    assert calls.names == ["trilemma::linear_step"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base": torch.zeros(2, 6)}, "base"),
        ({"table": torch.zeros(3, layout.TWO_COMPONENTS.WIDTH, dtype=torch.float64)}, "two components"),
        ({"output": torch.zeros(3, 5)}, "output has shape"),
        ({"output": torch.zeros(10, 5)}, "output has shape"),
        ({"out": torch.zeros(2, 5, 1)}, "out has shape"),
        ({"table": torch.zeros(3, layout.WIDTH)}, "float64"),
        ({"row": 3}, "row 3 is outside"),
        ({"row": -1}, "row -1 is outside"),
        ({"write_slot": 1}, "do not fit a history"),
        ({"read_slots": [0, 1]}, "do not fit a history"),
        ({"read_slots": [-1]}, "do not fit a history"),
        ({"read_slots": [0] * 8}, "do not fit a history"),
        ({"history": torch.zeros(1, 2, 6)}, "history"),
        ({"noise": torch.zeros(5)}, "noise"),
        ({"indices": None}, "the row adds noise"),
        ({"indices": torch.zeros(2)}, "indices"),
        ({"bad_row": torch.zeros(2, dtype=torch.int64)}, "bad_row"),
        ({"others": [torch.zeros(2, 6)]}, "one of others"),
        ({"others": [torch.zeros(2, 5)] * 4}, "a row reads at most 3"),
        ({"others": [torch.zeros(2, 5, requires_grad=True)]}, "no gradient"),
        ({"z": torch.zeros(2, 5, requires_grad=True)}, "no gradient"),
        ({"z": torch.zeros(2, 5, dtype=torch.int32)}, "floating-point batch"),
    ],
)
def test_arguments_that_do_not_fit(change: dict[str, Any], message: str) -> None:
    x = Case(2, (5,), torch.float32, 1, 1, 1, [0], 0, "keyed", 1.0, 0).arguments()
    with pytest.raises(UsageError, match=message):
        linear_step(**{**x, **change})


def test_torch_checks_the_operators() -> None:
    x = Case(2, (5,), torch.float32, 2, 2, 1, [0], 0, "keyed", 1.0, 0, others=2).arguments()
    torch.library.opcheck(
        torch.ops.trilemma.linear_step.default,
        (*(x | {"seed": 7}).values(),),
        {"backend": "auto"},
        test_utils=("test_schema", "test_faketensor"),
    )
    torch.library.opcheck(
        torch.ops.trilemma.keyed_normal.default,
        (torch.empty(3, 4), torch.arange(3), 7, 1, 1),
        {"backend": "auto"},
        test_utils=("test_schema", "test_faketensor"),
    )
